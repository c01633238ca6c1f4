"""The finished adapter: its download, and how to use it in other programs."""

from __future__ import annotations

from pathlib import Path

from lora_studio.jobs.view import RunView
from lora_studio.runs import Run
from lora_studio.ui import downloads, images, tabs, words


def html(run: Run, view: RunView, outputs: Path) -> str:
    """The finished adapter as HTML; empty while the run has none."""
    end = view.finished
    file = images.inside(run.folder, end.adapter) if end else None
    if end is None or file is None:
        return ""
    settings, name = run.settings(), words.text(file.stem)
    size, steps, loss = (
        words.size(file.stat().st_size),
        words.counted(end.steps, "step"),
        words.figure(view.average_loss),
    )
    facts = words.facts((size, f"rank {settings.adapter.rank}", steps, f"average loss {loss}"))
    ways = downloads.link(file, outputs, "Download the adapter") + tabs.link(
        "library", f"{run.name}/{end.adapter}", "Show in the library"
    )
    trigger = f" Start your prompts with <b>{words.text(settings.run.trigger)}</b>." if settings.run.trigger else ""
    head = f"<div><h3>{words.text(file.name)}</h3>{facts}</div>"
    return (
        f'<div class="result"><div class="file">{head}<div class="ways">{ways}</div></div>'
        "<dl><dt>ComfyUI</dt><dd>Put it in <code>models/loras</code>, add a <i>Load LoRA</i> node between the "
        "checkpoint and the prompts, and start with a strength of 0.8.</dd>"
        "<dt>Forge, A1111</dt><dd>Put it in <code>models/Lora</code> and add "
        f"<code>&lt;lora:{name}:0.8&gt;</code> to the prompt.</dd>"
        f"<dt>Base model</dt><dd>It was trained on <b>{words.text(Path(settings.run.base).name)}</b> and works with "
        f"models derived from it.{trigger}</dd></dl></div>"
    )
