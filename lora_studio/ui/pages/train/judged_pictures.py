"""What a judged state draws beside what the base model draws, and drawn pictures that may be copies beside the training
pictures, as HTML.
"""

from __future__ import annotations

from pathlib import Path

from lora_studio.dataset import pictures
from lora_studio.errors import DatasetError
from lora_studio.evaluation import judgements
from lora_studio.evaluation.judgements import Copy, Judgement, JudgingPlan
from lora_studio.evaluation.value import STYLE_SCALE, number
from lora_studio.language import in_row, tr
from lora_studio.runs import Run
from lora_studio.ui import images, words
from lora_studio.ui.pages.train import saved
from lora_studio.ui.pages.train.judged import Evaluation


def html(run: Run, one: Judgement, found: Evaluation, data: Path | None, outputs: Path) -> str:
    """The pictures of one judged state: each prompt with the first seed. ``data`` is the folder of the training
    pictures, if it is known.
    """
    plan = found.plan or JudgingPlan(())
    pairs = "".join(_pair(run, one.step, number, name, outputs) for number, name in enumerate(plan.prompts))
    copies = "".join(_copy(run, one.step, copy, plan.prompts, data, outputs) for copy in one.copies)
    copies += "".join(_memorized(run, one.step, copy, data, outputs) for copy in one.memorized.pictures)
    beside = tr("Possible copies, beside your pictures")
    alike = f'<h4>{beside}</h4><div class="pairs">{copies}</div>' if copies else ""
    about = tr(
        "{measures}. Each pair: the base model on the left, step {step:,} on the right, with seed {seed}.",
        measures=_measures(one),
        step=one.step,
        seed=plan.first_seed,
    )
    title = tr("Step {step:,}", step=one.step)
    return (
        f'<div class="drawn"><div class="head"><h3>{title}</h3>{_keep(one.step, found)}</div>'
        f'<p class="hint">{words.text(about)}</p>{alike}<div class="pairs">{pairs}</div></div>'
    )


def _keep(step: int, found: Evaluation) -> str:
    if step in found.kept:
        return saved.is_kept()
    return saved.button("keep", step, tr("Keep step {step:,}", step=step), "way")


def _measures(one: Judgement) -> str:
    margin = one.style.margin(STYLE_SCALE)
    style = tr("Style {percent}", percent=f"{number(one.style.value)} %{f' ({margin})' if margin else ''}")
    drift = tr("drift {drift:.2f}", drift=one.drift.value)
    return in_row([style, one.told_subjects, drift, one.told_copies])


def _pair(run: Run, step: int, number: int, prompt: str, outputs: Path) -> str:
    base, drawn = (_image(run, name, number, 0, outputs) for name in ("base", f"step-{step}"))
    if not base and not drawn:
        return ""
    title = words.text(prompt)
    of_base = tr("{prompt}, base model", prompt=title)
    return (
        f"<figure>{_picture(base, of_base)}{_picture(drawn, _of_step(title, step))}"
        f"<figcaption>{title}</figcaption></figure>"
    )


def _of_step(prompt: str, step: int) -> str:
    return tr("{prompt}, step {step:,}", prompt=prompt, step=step)


def _copy(run: Run, step: int, one: Copy, prompts: tuple[str, ...], data: Path | None, outputs: Path) -> str:
    prompt = words.text(
        prompts[one.prompt] if one.prompt < len(prompts) else tr("prompt {number}", number=one.prompt + 1)
    )
    drawn = _image(run, f"step-{step}", one.prompt, one.seed, outputs)
    return _beside(drawn, prompt, step, one, data, outputs)


def _memorized(run: Run, step: int, one: Copy, data: Path | None, outputs: Path) -> str:
    drawn = _image(run, f"step-{step}", "caption", one.prompt, outputs)
    return _beside(drawn, tr("asked by a caption"), step, one, data, outputs)


def _beside(drawn: Path | None, asked: str, step: int, one: Copy, data: Path | None, outputs: Path) -> str:
    """A drawn picture beside the training picture. ``asked`` is HTML."""
    name, training = words.text(one.training), _training(data, one.training, outputs)
    like = tr("<b>{asked}</b>, {share:.0f} % like {name}", asked=asked, share=100 * one.likeness, name=name)
    return (
        f'<figure class="copy">{_picture(drawn, _of_step(asked, step))}{_picture(training, name)}'
        f"<figcaption>{like}</figcaption></figure>"
    )


def _picture(path: Path | None, title: str) -> str:
    """An image of the page; an empty place where there is none. ``title`` is HTML."""
    if path is None:
        return f'<span class="gone">{tr("not there")}</span>'
    return f'<img src="{words.text(images.address(path))}" alt="{title}" title="{title}" loading="lazy">'


def _image(run: Run, name: str, prompt: int | str, seed: int, outputs: Path) -> Path | None:
    """The page's copy of a picture that was drawn for judging; None if it cannot be read. ``prompt`` and ``seed`` are
    numbers, or "caption" and the caption's number.
    """
    source = images.inside(judgements.folder(run), f"{name}/{prompt}-{seed}.png")
    try:
        return images.copy(source, outputs, images.THUMBNAIL, images.preview) if source else None
    except OSError:
        return None


def _training(data: Path | None, name: str, outputs: Path) -> Path | None:
    """The page's copy of a training picture; None if it is gone or cannot be read."""
    source = images.inside(data, name) if data else None
    try:
        return images.copy(source, outputs, images.THUMBNAIL, pictures.open_picture) if source else None
    except (OSError, DatasetError):
        return None
