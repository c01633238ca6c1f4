"""What the panel with all runs and the queue shows to one browser tab."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio import files, runs
from lora_studio.jobs import housekeeping, queue
from lora_studio.language import both, ntr, tr
from lora_studio.runs import Run, trash
from lora_studio.ui import words
from lora_studio.ui.outcome import done
from lora_studio.ui.pages.runs import address, comparison, queue_list, rows
from lora_studio.ui.pages.runs.rows import PAGE, RowCache
from lora_studio.ui.pages.train.live import RunWatcher

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
    compared: tuple[str, ...] = ()
    """The two runs that are compared, in place of the list; empty where none are."""
    steps: dict[int, int] = field(default_factory=dict)
    """The steps whose previews are compared, by 0 and 1; the last where none was chosen."""
    renaming: str = ""
    """The run that gets another name."""
    deleted: str = ""
    """The run that was moved to the trash, while that can be undone."""
    said: str = ""
    """What came of the last press, as HTML."""
    sent: dict[str, Any] = field(default_factory=dict)

    def settle(self) -> None:
        """Forgets what the last press began."""
        self.said = self.renaming = self.deleted = ""

    def compare(self, *names: str) -> None:
        """Shows the comparison of these two runs, or the list."""
        self.compared, self.first, self.steps = names, "", {}

    def unsent(self, updates: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Those of ``updates`` that the tab has not been sent, by part."""
        new = {name: update for name, update in updates.items() if self.sent.get(name) != update}
        self.sent |= new
        return {name: gr.update(**update) for name, update in new.items()}


def shown(here: PanelState, chosen: str, watcher: RunWatcher, known: RowCache) -> dict[str, dict[str, Any]]:
    """The panel's parts while it is open. ``chosen`` is the run that the page shows."""
    pair = [run for name in here.compared if (run := watcher.find(name))]
    here.compared = tuple(run.name for run in pair) if len(pair) == len(here.compared) else ()
    here.first = here.first if watcher.find(here.first) else ""
    told = here.said or (_choose(here.first) if here.first else "")
    parts: dict[str, dict[str, Any]] = {
        "title": {"value": _title(here.compared)},
        "back": {"visible": bool(here.compared)},
        "filter": {"visible": not here.compared},
        "said": {"value": told, "visible": bool(told)},
        "renaming": {"visible": bool(here.renaming)},
        "comparison": {"visible": bool(here.compared)},
        "address": {"value": address.html(here.compared)},
    }
    if here.compared:
        parts["comparison"]["value"] = comparison.html(pair, here.steps, watcher)
        return parts | {name: {"visible": False} for name in ("queue", "list")}
    return parts | _listed(here, chosen, watcher.outputs, known)


def _title(compared: Sequence[str]) -> str:
    return f"<h2>{both(map(words.text, compared)) if compared else tr('All runs')}</h2>"


def _choose(first: str) -> str:
    name, label = words.text(first), tr("Do not compare")
    what = tr('Choose the run to compare <b>{name}</b> with: press "With this".', name=name)
    stop = f'<button class="quiet-link" data-act="alone" data-run="{name}">{label}</button>'
    return f'<p class="hint" role="status">{what} {stop}</p>'


def _listed(here: PanelState, chosen: str, outputs: Path, known: RowCache) -> dict[str, dict[str, Any]]:
    """The queue and the list of runs."""
    listing = runs.listing(outputs)
    wanted = here.words.casefold().split()
    found = [run for run in listing.runs if all(word in run.name.casefold() for word in wanted)]
    listed = [known.row(run) for run in found[: here.most]]
    line = queue_list.html(queue.line(outputs), known)
    body = rows.html(listed, chosen, here.first, max(0, len(found) - here.most)) if listed else _nothing(here.words)
    return {
        "queue": {"value": line, "visible": bool(line)},
        "list": {"value": body + _unreadable(listing.unreadable), "visible": True},
    }


def deleted(run: Run) -> str:
    """That the run was deleted, where it is now, and how it comes back."""
    place = trash.place(run.folder)
    where = tr("Its folder is {place} now.", place=place) if place else tr("Your system's trash can restore it.")
    what = tr("{name} is in the trash, with its adapters and states.", name=words.text(run.name))
    undone = undo(run.name, run.folder.parent)
    return f'<div class="notice right" role="status"><b>{what}</b><p>{words.text(where)}</p>{undone}</div>'


def undo(name: str, outputs: Path) -> str:
    """The button that brings the deleted run back; empty where it cannot."""
    if not housekeeping.restorable(name, outputs):
        return ""
    return f'<button type="button" class="way" data-act="restore" data-run="{words.text(name)}">{tr("Undo")}</button>'


def said(name: str, what: str, more: str = "") -> str:
    """What was done with the run of that name."""
    return f'<div data-run="{words.text(name)}" tabindex="-1">{done(what, more)}</div>'


def renamed(old: str, typed: str, new: str) -> str:
    """That a run has another name, and why it isn't the one that was ``typed``."""
    if " ".join(typed.split()) == new:
        return said(new, tr("{old} is called {new} now.", old=old, new=new))
    return said(
        new,
        tr("{old} is called {new} now.", old=old, new=new),
        tr("Saved as {new}: it is the name of a folder and of files.", new=new),
    )


def _nothing(text: str) -> str:
    what = (
        tr("No run has “{words}” in its name.", words=files.printable(text.strip()))
        if text.strip()
        else tr("No run yet.")
    )
    return f'<p class="hint">{words.text(what)}</p>'


def _unreadable(problems: list[runs.Unreadable]) -> str:
    told = [words.notice("warned", one.what, one.path, one.do) for one in problems[:_UNREADABLE]]
    if (more := len(problems) - _UNREADABLE) > 0:
        what = ntr(more, "{count:,} more folder cannot be read.", "{count:,} more folders cannot be read.")
        told.append(words.notice("warned", what))
    return "".join(told)
