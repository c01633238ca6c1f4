"""What a run made: its adapter to download, and where to put it."""

from __future__ import annotations

from pathlib import Path

from lora_studio.jobs.view import RunView
from lora_studio.runs import Run
from lora_studio.ui import downloads, images, tabs, words


def html(run: Run, view: RunView, outputs: Path) -> str:
    """The finished adapter as HTML; empty before the run has ended with one."""
    file = images.inside(run.folder, view.finished.adapter) if view.finished else None
    if file is None:
        return ""
    settings, name = run.settings(), words.text(file.stem)
    end = view.finished
    size, steps, loss = words.size(file.stat().st_size), words.counted(end.steps, "step"), words.figure(end.final_loss)
    facts = words.facts((size, f"rank {settings.adapter.rank}", steps, f"last loss {loss}"))
    ways = downloads.link(file, outputs, "Download the adapter") + tabs.link(
        "library", f"{run.name}/{view.finished.adapter}", "Show it in the library"
    )
    trigger = f" Begin prompts with <b>{words.text(settings.run.trigger)}</b>." if settings.run.trigger else ""
    return (
        f'<div class="result"><div class="file"><div><h3>{words.text(file.name)}</h3>{facts}</div><div class="ways">{ways}</div></div>'
        f"<dl><dt>ComfyUI</dt><dd>Put it in <code>models/loras</code>, set a <i>Load LoRA</i> node between the checkpoint and the prompts, "
        f"and start at strength 0.8.</dd>"
        f"<dt>Forge, A1111</dt><dd>Put it in <code>models/Lora</code> and write <code>&lt;lora:{name}:0.8&gt;</code> into the prompt.</dd>"
        f"<dt>Base model</dt><dd>It fits <b>{words.text(Path(settings.run.base).name)}</b>, on which it was trained, "
        f"and that model's relatives.{trigger}</dd></dl></div>"
    )
