"""The page's images and what is said about them, as HTML."""

from __future__ import annotations

from pathlib import Path

from lora_studio.jobs.renderer import Answer
from lora_studio.language import tr
from lora_studio.ui import images, words
from lora_studio.ui.blank import blank
from lora_studio.ui.pages.mix.image_specs import Scene
from lora_studio.ui.scene.mixture import Mix

EMPTY = blank(
    "mix",
    tr("Nothing to see yet"),
    "Choose an adapter from your library. What it draws appears here beside the base model's own picture, and follows "
    'each weight that you change. No adapter yet? <a href="#train">Train one</a>.',
)


def html(mix: Mix) -> str:
    """The two images side by side, with empty places for those that are not drawn yet."""
    if not mix.rows:
        return EMPTY
    return f'<div class="previews">{_figure("Without adapters", mix.plain)}{_figure("Mix", mix.mixed, "mixed")}</div>'


def _figure(title: str, path: str, kind: str = "") -> str:
    image = f'<img src="{words.text(images.address(Path(path)))}" alt="{title}" decoding="sync">' if path else ""
    return f'<figure class="{kind}"><div>{image}</div><figcaption>{title}</figcaption></figure>'


def caption(answer: Answer, scene: Scene) -> str:
    """Seed, steps and time of an image, and what is to be known of the base model."""
    steps = words.counted(answer.steps, "step")
    seconds = [f"{answer.seconds:.1f} s"] if answer.seconds else []
    facts = words.facts(
        (
            tr("seed {int}", int=int(scene.seed or 0)),
            steps if answer.last else tr("first look, {steps}", steps=steps),
            *seconds,
        )
    )
    return facts + _about(answer)


def _about(answer: Answer) -> str:
    """What the base model predicts, folded, and what else is to be known of it."""
    told = f'<summary>Base model</summary><p class="hint">{words.text(answer.base)}</p>'
    predicts = f'<details class="note">{told}</details>' if answer.base else ""
    return predicts + "".join(words.notice("warned", notice) for notice in answer.notices)


def cost(mix: Mix, blend: Answer | None) -> str:
    """The rank, size and loss of the mix as one adapter, before it is saved; ``blend`` is None for the plain sum."""
    if not mix.rows:
        return ""
    if blend is None:
        total = sum(row.rank for row in mix.rows if row.weight)
        return words.facts((*([f"rank {total}"] if total else []), tr("the sum itself: nothing is lost")))
    kept = f"keeps {100 * (1 - blend.residual**2):.1f} % of the change (residual {words.figure(blend.residual)})"
    return words.facts(
        (
            tr("rank {rank}", rank=blend.rank),
            words.size(blend.size),
            kept if blend.residual else tr("nothing is trimmed away"),
        )
    )


def sheet(answer: Answer, title: str) -> str:
    """A drawn sheet with a link to download it."""
    address, name = words.text(images.address(Path(answer.path))), words.text(title)
    facts = words.facts((tr("its recipe is in its header"), f"{answer.seconds:.1f} s")) if answer.seconds else ""
    link = f'<a class="download" download="{name}.png" href="{address}">Download</a>'
    image = f'<a class="sheet" href="{address}" target="_blank" rel="noopener"><img src="{address}" alt="{name}"></a>'
    return f'<div class="outcome">{image}<div class="file">{facts}{link}</div></div>{_about(answer)}'
