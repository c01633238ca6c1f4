"""The page's images and what is said about them, as HTML."""

from __future__ import annotations

from pathlib import Path

from lora_studio.jobs.renderer import Answer
from lora_studio.language import tr
from lora_studio.ui import images, words
from lora_studio.ui.blank import blank, link
from lora_studio.ui.pages.mix.image_specs import Scene
from lora_studio.ui.scene.mixture import Mix


def empty() -> str:
    """What stands there while the mix has no adapter."""
    sentences = tr(
        "Choose an adapter from your library. What it draws appears here beside the base model's own picture, and "
        "follows each weight that you change. No adapter yet? {link}.",
        link=link("train", tr("Train one")),
    )
    return blank("mix", tr("Nothing to see yet"), sentences)


def html(mix: Mix) -> str:
    """The two images side by side, with empty places for those that are not drawn yet."""
    if not mix.rows:
        return empty()
    plain, mixed = _figure(tr("Without adapters"), mix.plain), _figure(tr("Mix"), mix.mixed, "mixed")
    return f'<div class="previews">{plain}{mixed}</div>'


def _figure(title: str, path: str, kind: str = "") -> str:
    title = words.text(title)
    image = f'<img src="{words.text(images.address(Path(path)))}" alt="{title}" decoding="sync">' if path else ""
    return f'<figure class="{kind}"><div>{image}</div><figcaption>{title}</figcaption></figure>'


def caption(answer: Answer, scene: Scene) -> str:
    """Seed, steps and time of an image, and what is to be known of the base model."""
    steps = words.counted(answer.steps, "step")
    seed = tr("seed {seed}", seed=int(scene.seed or 0))
    looked = steps if answer.last else tr("first look, {steps}", steps=steps)
    return words.facts((seed, looked, *_seconds(answer))) + _about(answer)


def _seconds(answer: Answer) -> list[str]:
    return [tr("{seconds:.1f} s", seconds=answer.seconds)] if answer.seconds else []


def _about(answer: Answer) -> str:
    """What the base model predicts, folded, and what else is to be known of it."""
    told = f'<summary>{words.text(tr("Base model"))}</summary><p class="hint">{words.text(answer.base)}</p>'
    predicts = f'<details class="note">{told}</details>' if answer.base else ""
    return predicts + "".join(words.notice("warned", notice) for notice in answer.notices)


def cost(mix: Mix, blend: Answer | None) -> str:
    """The rank, size and loss of the mix as one adapter, before it is saved; ``blend`` is None for the plain sum."""
    if not mix.rows:
        return ""
    if blend is None:
        total = sum(row.rank for row in mix.rows if row.weight)
        rank = [tr("rank {rank}", rank=total)] if total else []
        return words.facts((*rank, tr("the sum itself: nothing is lost")))
    kept = tr(
        "keeps {share:.1f} % of the change (residual {residual})",
        share=100 * (1 - blend.residual**2),
        residual=words.figure(blend.residual),
    )
    lost = kept if blend.residual else tr("nothing is trimmed away")
    return words.facts((tr("rank {rank}", rank=blend.rank), words.size(blend.size), lost))


def sheet(answer: Answer, title: str) -> str:
    """A drawn sheet with a link to download it."""
    address, name = words.text(images.address(Path(answer.path))), words.text(title)
    facts = words.facts((tr("its recipe is in its header"), *_seconds(answer))) if answer.seconds else ""
    link = f'<a class="download" download="{name}.png" href="{address}">{words.text(tr("Download"))}</a>'
    image = f'<a class="sheet" href="{address}" target="_blank" rel="noopener"><img src="{address}" alt="{name}"></a>'
    return f'<div class="outcome">{image}<div class="file">{facts}{link}</div></div>{_about(answer)}'
