"""The finished adapter: its download, and how to use it in other programs."""

from __future__ import annotations

from pathlib import Path

from lora_studio import adapters
from lora_studio.adapters import metadata
from lora_studio.config.settings import Settings
from lora_studio.errors import StudioError
from lora_studio.jobs.view import RunView
from lora_studio.runs import Run
from lora_studio.ui import downloads, images, tabs, words


def html(run: Run, view: RunView, outputs: Path) -> str:
    """The finished adapter as HTML; empty while the run has none."""
    end = view.finished
    file = images.inside(run.folder, end.adapter) if end else None
    if end is None or file is None:
        return ""
    settings, name, own = run.settings(), words.text(file.stem), _for_the_starter(file)
    size, steps, loss = (
        words.size(file.stat().st_size),
        words.counted(end.steps, "step"),
        words.figure(view.average_loss),
    )
    facts = words.facts((size, f"rank {settings.adapter.rank}", steps, f"average loss {loss}"))
    ways = downloads.link(file, outputs, "Download the adapter") + tabs.link(
        "library", f"{run.name}/{end.adapter}", "Show in the library"
    )
    head = f"<div><h3>{words.text(file.name)}</h3>{facts}</div>"
    programs, base = "" if own else _programs(name), _base(settings, file, own)
    return (
        f'<div class="result"><div class="file">{head}<div class="ways">{ways}</div></div>'
        f"<dl>{programs}<dt>Base model</dt><dd>{base}</dd></dl></div>"
    )


def _for_the_starter(file: Path) -> bool:
    """Whether the adapter fits the starter alone, by its shapes: the base model may have been given as a path."""
    try:
        return adapters.summary(file).family == "starter"
    except StudioError:
        return False


def _programs(name: str) -> str:
    """How to use the adapter called ``name``, as HTML, in the programs that load its base model."""
    return (
        "<dt>ComfyUI</dt><dd>Put it in <code>models/loras</code>, add a <i>Load LoRA</i> node between the "
        "checkpoint and the prompts, and start with a strength of 0.8.</dd>"
        "<dt>Forge, A1111</dt><dd>Put it in <code>models/Lora</code> and add "
        f"<code>&lt;lora:{name}:0.8&gt;</code> to the prompt.</dd>"
    )


def _base(settings: Settings, file: Path, starter: bool) -> str:
    """Which base model the adapter works with, and how prompts are written and read there."""
    base = (
        "It was trained on the <b>built-in starter</b> and works only with that: draw with it on the Mix page. For "
        "ComfyUI, Forge or A1111, train on the Stable Diffusion model that you use there."
        if starter
        else f"It was trained on <b>{words.text(Path(settings.run.base).name)}</b> and works with models derived "
        "from it."
    )
    trigger = f" Start your prompts with <b>{words.text(settings.run.trigger)}</b>." if settings.run.trigger else ""
    skip = _clip_skip(file)
    return base + trigger + (f" Set clip skip to {skip}, as it was trained." if skip > 1 else "")


def _clip_skip(file: Path) -> int:
    """The clip skip that the adapter's header states; 0 if it states none or cannot be read."""
    try:
        return metadata.clip_skip(adapters.header(file).metadata)
    except StudioError:
        return 0
