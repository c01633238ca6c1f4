"""The sentences that the model is asked in its evaluation, and how right its pictures are.

Each form is asked for the twelve common subjects and for `OTHERS` further ones. Its figures are the classifier's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from . import colours
from .captions import article, made_up, plural
from .names import COMMON, STYLES, prominence, words
from .scenes import COLOURS, MEASURED, uncoloured

OTHERS = 48
"""Subjects beside the common ones."""

_RARE = ("perambulate", "quorum", "obsidian", "thrice", "vestige", "sonorous", "tangential", "ombudsman", "lugubrious")

Form = Callable[[str, str, str], str]
"""(name, made-up word, name of another subject) -> prompt."""

UNKNOWN: dict[str, Form] = {
    "unknown word behind": lambda n, w, _: f"{n}, {w}",
    "unknown word first": lambda n, w, _: f"{w}, {n}",
    "unknown word, no comma": lambda n, w, _: f"{n} {w}",
    "unknown style": lambda n, w, _: f"a picture of {article(n)} in {w} style",
    "unknown style, plain": lambda n, w, _: f"{n} in {w} style",
    "unknown artist": lambda n, w, _: f"{article(n)} by {w} {w[::-1]}",
    "two unknown words": lambda n, w, _: f"{w} {w[::-1]}, {n}",
    "rare word": lambda n, w, _: f"{n}, {_RARE[len(w + n) % len(_RARE)]}",
    "rare word first": lambda n, w, _: f"{_RARE[len(w + n) % len(_RARE)]}, {article(n)}",
}
ARTICLES: dict[str, Form] = {
    "article": lambda n, w, _: article(n),
    "a picture of": lambda n, w, _: f"a picture of {article(n)}",
    "an icon of": lambda n, w, _: f"an icon of {article(n)}",
    "a drawing of": lambda n, w, _: f"a drawing of {article(n)}",
}
PLACES: dict[str, Form] = {
    "small": lambda n, w, _: f"a small {n}",
    "large": lambda n, w, _: f"a large {n}",
    "left": lambda n, w, _: f"{article(n)} on the left",
    "right": lambda n, w, _: f"{article(n)} on the right",
    "top": lambda n, w, _: f"{article(n)} at the top",
    "small, on a table": lambda n, w, _: f"a small {n} on a table",
    "on the grass": lambda n, w, _: f"{article(n)} on the grass",
    "blue sky": lambda n, w, _: f"{article(n)} under a blue sky",
    "blue background": lambda n, w, _: f"{n} on a blue background",
}
COUNTS: dict[str, Form] = {
    "two": lambda n, w, _: f"two {plural(n)}",
    "three": lambda n, w, _: f"three {plural(n)}",
}
PAIRS: dict[str, Form] = {
    "pair": lambda n, w, m: f"{n} and {m}",
    "pair, beside": lambda n, w, m: f"{article(n)} beside {article(m)}",
}
FORMS: dict[str, Form] = {"plain": lambda n, w, _: n} | UNKNOWN | ARTICLES | PLACES | COUNTS | PAIRS


FEW = (
    "apple", "a cat", "a small cat on a table", "two cats", "cat and house", "a red car", "ghost, zorp",
    "a picture of a tree in zorp style",
)  # fmt: skip
"""Prompts of several kinds, for comparing numbers of steps."""


@dataclass(frozen=True)
class Asked:
    """One subject of the evaluation: its name, what may be seen in its pictures, the word that its forms add, and
    whether its icons have one main colour.
    """

    name: str
    right: frozenset[str]
    word: str
    paintable: bool


def asked(
    subjects: Sequence[str], styles: Mapping[str, int], paintable: Mapping[str, int], seed: int = 11
) -> list[Asked]:
    """The common subjects and `OTHERS` more that most styles have and that are no faces or signs, each time the same.

    styles: in how many styles each subject was trained on; paintable: in how many its main colour can be changed. A
    subject in its own colour is right too: a heart may be the emoji "blue heart".
    """
    draw = random.Random(seed)
    fit = [s for s in subjects if styles.get(s, 0) >= 4 and prominence(s) == 1 and uncoloured(s)]
    names = [*COMMON, *(uncoloured(s)[0] for s in draw.sample(fit, min(OTHERS, len(fit))))]
    found = []
    for name in names:
        right = frozenset(s for s in subjects if _shows(s, name))
        own = [s for s in right if name in words(s)]
        plain = sum(paintable.get(s, 0) for s in own) > 0.6 * sum(styles.get(s, 0) for s in own)
        found.append(Asked(name, right, made_up(draw), plain))
    return found


def _shows(subject: str, name: str) -> bool:
    """Whether a subject is called so, a colour before its name aside."""
    called = {" ".join(p for p in text.split() if p not in COLOURS and p != "white") for text in words(subject)}
    return name in {*called, *words(subject)}


def prompts(form: Form, subjects: Sequence[Asked]) -> list[str]:
    """One prompt per subject; in a pair the other one is the seventh next."""
    return [form(a.name, a.word, subjects[(k + 7) % len(subjects)].name) for k, a in enumerate(subjects)]


def share_right(
    logits: torch.Tensor, subjects: Sequence[str], rights: Sequence[frozenset[str]], best: int = 1
) -> float:
    """Share of pictures among whose `best` likeliest subjects (of logits (N, subjects)) a right one is."""
    top = logits.topk(best).indices.tolist()
    return sum(any(subjects[i] in right for i in row) for row, right in zip(top, rights, strict=True)) / len(top)


def both_right(
    logits: torch.Tensor, subjects: Sequence[str], one: Sequence[frozenset[str]], two: Sequence[frozenset[str]]
) -> float:
    """Share of pictures among whose five likeliest subjects both are."""
    seen = [{subjects[i] for i in row} for row in logits.topk(5).indices.tolist()]
    return sum(bool(s & a and s & b) for s, a, b in zip(seen, one, two, strict=True)) / len(seen)


def lopsided(x: torch.Tensor, side: str) -> float:
    """Share of pictures (N, 3, 128, 128) in -1..1 whose subject's middle is on a side: left, right or top."""
    far = (x - x[:, :, :3, :3].mean((2, 3), keepdim=True)).norm(dim=1).gt(0.3).float()
    axis = torch.linspace(-1, 1, x.shape[-1], device=x.device)
    weight = far.sum((1, 2)).clamp(min=1)
    across, down = (far.sum(1) @ axis) / weight, (far.sum(2) @ axis) / weight
    return float({"left": across < -0.2, "right": across > 0.2, "top": down < -0.2}[side].float().mean())


def covered(x: torch.Tensor) -> float:
    """Mean share of the picture that is not background, for pictures on plain paper."""
    return float((x - x[:, :, :3, :3].mean((2, 3), keepdim=True)).norm(dim=1).gt(0.3).float().mean())


Draw = Callable[[list[str], int], torch.Tensor]
"""(prompts, seed) -> pictures (N, 3, 128, 128) in -1..1."""
Read = Callable[[torch.Tensor], torch.Tensor]
"""Pictures -> the classifier's logits over subjects."""


def measure(draw: Draw, read: Read, subjects: Sequence[str], those: Sequence[Asked], seeds: int = 2) -> dict:
    """Every form's figures."""
    found: dict[str, dict[str, float]] = {}
    rights = [a.right for a in those] * seeds
    for name, form in FORMS.items():
        x = torch.cat([draw(prompts(form, those), seed) for seed in range(seeds)])
        logits = read(x)
        found[name] = {"subject": share_right(logits, subjects, rights)}
        if name in PAIRS:
            others = [those[(k + 7) % len(those)].right for k in range(len(those))] * seeds
            found[name] = {"both in five": both_right(logits, subjects, rights, others)}
        if name in ("left", "right", "top"):
            found[name]["place"] = lopsided(x, name)
        if name in ("plain", "small", "large"):
            found[name]["covered"] = covered(x)
    plain = [a for a in those if a.paintable]
    rights = [a.right for a in plain] * seeds
    for word in MEASURED:
        x = torch.cat([draw([article(f"{word} {a.name}") for a in plain], seed) for seed in range(seeds)])
        right = float((colours.colour_word(x) == MEASURED.index(word)).float().mean())
        found[word] = {"subject": share_right(read(x), subjects, rights), "colour": right}
    return {name: {k: round(v, 3) for k, v in values.items()} for name, values in found.items()} | {
        "pictures of each form": len(those) * seeds,
        "pictures of each colour": len(rights),
    }


Row = Callable[[int, str], str]
"""(column, common subject) -> prompt."""


def _of_form(form: Form) -> Row:
    word = made_up(random.Random(5))
    return lambda k, name: form(name, word, COMMON[(k + 7) % len(COMMON)])


def _of_style(style: str) -> Row:
    return lambda _, name: f"{name}, {style} style"


def sheet_rows() -> dict[str, Row]:
    """The rows of the contact sheet by name: every form, two rows of colours, every style."""
    words_of_colour = [*COLOURS]
    return (
        {name: _of_form(form) for name, form in FORMS.items()}
        | {
            "colours": lambda k, name: article(f"{MEASURED[k % len(MEASURED)]} {name}"),
            "other colours": lambda k, name: article(f"{words_of_colour[(k + 5) % len(words_of_colour)]} {name}"),
        }
        | {f"{style} style": _of_style(style) for style in STYLES.values()}
    )
