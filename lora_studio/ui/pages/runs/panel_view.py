"""What the panel with all runs and the queue shows to one browser tab."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio import files, runs
from lora_studio.jobs import queue
from lora_studio.runs import Run, trash
from lora_studio.ui import words
from lora_studio.ui.pages.runs import queue_list, rows
from lora_studio.ui.pages.runs.rows import PAGE, RowCache

_UNREADABLE = 5
"""Folders that cannot be read and are named one by one."""


@dataclass
class PanelState:
    """What the panel of one browser tab shows."""

    open: bool = False
    words: str = ""
    """Runs with all of these in their names are shown."""
    most: int = PAGE
    """Runs that are shown at once."""
    first: str = ""
    """The run that is to be compared with another one."""
    renaming: str = ""
    """The run that gets another name."""
    said: str = ""
    """What came of the last press, as HTML."""
    sent: dict[str, Any] = field(default_factory=dict)

    def settle(self) -> None:
        """Forgets what the last press began."""
        self.said = self.renaming = ""

    def unsent(self, updates: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Those of ``updates`` that the tab has not been sent, by part."""
        new = {name: update for name, update in updates.items() if self.sent.get(name) != update}
        self.sent |= new
        return {name: gr.update(**update) for name, update in new.items()}


def shown(here: PanelState, chosen: str, outputs: Path, known: RowCache) -> dict[str, dict[str, Any]]:
    """The panel's parts while it is open. ``chosen`` is the run that the page shows."""
    listing = runs.listing(outputs)
    wanted = here.words.casefold().split()
    found = [run for run in listing.runs if all(word in run.name.casefold() for word in wanted)]
    listed = [known.row(run) for run in found[: here.most]]
    line = queue_list.html(queue.line(outputs), known)
    body = rows.html(listed, chosen, here.first, max(0, len(found) - here.most)) if listed else _nothing(here.words)
    return {
        "said": {"value": here.said, "visible": bool(here.said)},
        "queue": {"value": line, "visible": bool(line)},
        "list": {"value": body + _unreadable(listing.unreadable)},
        "renaming": {"visible": bool(here.renaming)},
    }


def deleted(run: Run) -> str:
    """That the run was deleted, where it is now, and how it comes back."""
    place = trash.place(run.folder)
    where = f"Its folder is {place} now." if place else "Your system's trash can restore it."
    undo = f'<button type="button" class="way" data-act="restore" data-run="{words.text(run.name)}">Undo</button>'
    what = f"<b>{words.text(run.name)} is in the trash, with its adapters and states.</b>"
    return f'<div class="notice right" role="status">{what}<p>{words.text(where)}</p>{undo * bool(place)}</div>'


def _nothing(text: str) -> str:
    what = f"No run has “{files.printable(text.strip())}” in its name." if text.strip() else "No run yet."
    return f'<p class="hint">{words.text(what)}</p>'


def _unreadable(problems: list[runs.Unreadable]) -> str:
    told = [words.notice("warned", one.what, one.path, one.do) for one in problems[:_UNREADABLE]]
    if more := len(problems) - _UNREADABLE:
        told += [words.notice("warned", f"{words.counted(more, 'more folder')} cannot be read.")] * (more > 0)
    return "".join(told)
