"""How prompts are written: brackets that weigh words, and ``BREAK``. The rules are those of A1111's web UI
(https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features, "Attention/emphasis"), which ComfyUI and Forge
read alike up to ``BREAK``, square brackets and normalization; see docs/prompts.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from lora_studio.events import Warned
from lora_studio.language import in_sequence, tr

ROUND, SQUARE = 1.1, 1 / 1.1
"""What a bracket without a number multiplies the weights of its words by."""
_OPEN = {"(": ROUND, "[": SQUARE}
_CLOSE = {")": "(", "]": "["}
_BREAK = re.compile(r"\bBREAK\b")
_PIECES = re.compile(
    r"""
    \\(?P<escaped>[()\[\]\\]?)                      # \( is a bracket to read, \\ a backslash, a lone \ nothing
    | :\s*+(?P<number>[+-]?[.\d]++)\s*+(?P<end>\))     # the end of (word:1.2)
    | (?P<mark>[()\[\]])
    | (?P<words>[^\\()\[\]:]+|:)
    """,
    re.VERBOSE,
)
_ELSEWHERE = {
    re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>"): tr(
        "Name adapters with --adapter FILE:WEIGHT, or add them to the mix."
    ),
    re.compile(r"\bAND\b"): tr("Join descriptions with a comma instead of AND."),
}
"""What A1111 reads as more than words, and the studio does not -> what to do instead."""


_ADAPTER = re.compile(r"<(?:lora|lyco):\s*+([^\s:<>][^:<>]*+)(?::\s*+([+-]?(?:\d++\.?\d*+|\.\d++))\s*+)?>")
"""Nothing in it is tried twice, so that any text is read in time that grows with its length alone."""


class Part(NamedTuple):
    """Words of a prompt that have one weight."""

    text: str
    weight: float = 1.0
    begins: bool = False
    """Whether they begin a chunk, as after ``BREAK``."""


@dataclass
class _Run:
    """Words while brackets around them may still close."""

    text: str
    weight: float = 1.0
    begins: bool = False


def parse(prompt: str) -> list[Part]:
    """The parts of ``prompt`` in their order; one at least. Any text is a prompt: nothing is refused.

    ``(word)`` weighs 1.1, ``(word:1.2)`` 1.2, ``[word]`` 1/1.1; nested weights multiply. ``\\(``, ``\\)``, ``\\[``,
    ``\\]`` are the characters themselves. A bracket that is never closed reaches to the end; one that closes nothing is
    read as it is, and so is ``:1.2)`` where no round bracket is open. ``BREAK`` begins a chunk.

    >>> parse("a (red:1.2) cat")
    [Part(text='a ', weight=1.0, begins=False), Part(text='red', weight=1.2, begins=False), Part(text=' cat', \
weight=1.0, begins=False)]
    """
    runs: list[_Run] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        for run in runs[start:]:
            run.weight *= factor

    for piece in _PIECES.finditer(prompt):
        mark, number = piece["mark"], _number(piece["number"])
        if mark in _OPEN:
            opened[mark].append(len(runs))
        elif number is not None and opened["("]:
            multiply(opened["("].pop(), number)
        elif mark and opened[_CLOSE[mark]]:
            multiply(opened[_CLOSE[mark]].pop(), _OPEN[_CLOSE[mark]])
        elif piece["escaped"] is not None:
            runs.append(_Run(piece["escaped"]))
        elif piece["end"] and opened["("]:  # a number that is none, such as 1.2.3: the bracket closes anyway
            runs.append(_Run(piece[0][:-1]))
            multiply(opened["("].pop(), ROUND)
        else:
            runs += _broken(piece[0])
    for mark, starts in opened.items():
        _reach_to_the_end(runs, starts, _OPEN[mark])
    return list(_merged(runs)) or [Part("")]


def _reach_to_the_end(runs: list[_Run], starts: list[int], factor: float) -> None:
    """Multiplies what follows each of ``starts``, in one pass however many there are."""
    product, waiting = 1.0, sorted(starts, reverse=True)
    for place, run in enumerate(runs):
        while waiting and waiting[-1] <= place:
            product *= factor
            waiting.pop()
        run.weight *= product


def taken(prompt: str) -> tuple[str, list[tuple[str, float]]]:
    """``prompt`` without what names adapters in it, ``<lora:name:0.8>`` as A1111 writes it, and those names with their
    weights, in their order. Without a number the weight is 1. A tag of another form stays: see ``unknown``.

    >>> taken("a cat <lora:ink:0.8>, asleep")
    ('a cat , asleep', [('ink', 0.8)])
    """
    found = [(match[1].rstrip(), float(match[2] or 1)) for match in _ADAPTER.finditer(prompt)]
    return (_ADAPTER.sub("", prompt).strip() if found else prompt), found


def unknown(prompts: Iterable[str]) -> list[Warned]:
    """A notice, where there is something to say, of what ``prompts`` hold that A1111 reads as more than words and the
    studio does not.
    """
    found = {
        match[0]: do for prompt in prompts for pattern, do in _ELSEWHERE.items() for match in pattern.finditer(prompt)
    }
    if not found:
        return []
    return [
        Warned(
            what=tr("In prompts the studio reads {words} as plain words, unlike A1111.", words=", ".join(found)),
            where="prompt",
            do=in_sequence(dict.fromkeys(found.values())),
        )
    ]


def _number(text: str | None) -> float | None:
    """What stands behind a colon; None where it is no finite number."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _broken(text: str) -> Iterator[_Run]:
    first, *others = _BREAK.split(text)
    yield _Run(first.rstrip() if others else first)
    for number, words in enumerate(others, 1):
        yield _Run(words.strip() if number < len(others) else words.lstrip(), begins=True)


def _merged(runs: list[_Run]) -> Iterator[Part]:
    """Neighbours of equal weight as one part, so that words are tokenized as they are written."""
    held: Part | None = None
    for run in runs:
        if held is not None and run.weight == held.weight and not run.begins:
            held = held._replace(text=held.text + run.text)
            continue
        if held is not None:
            yield held
        held = Part(run.text, run.weight, run.begins)
    if held is not None:
        yield held
