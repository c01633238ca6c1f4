"""The queue as HTML: what is at work, and what waits in which order. Runs stand in it, and jobs of other kinds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lora_studio.jobs import control, reordering
from lora_studio.jobs.control import Request
from lora_studio.jobs.queue import QueueEntry
from lora_studio.language import tr
from lora_studio.ui import words
from lora_studio.ui.icons import icon
from lora_studio.ui.pages.runs.rows import RowCache


def html(line: Sequence[QueueEntry], rows: RowCache) -> str:
    """The queue; empty where nothing is at work or waits."""
    waiting = [entry for entry in line if reordering.waits(entry)]
    working = [entry for entry in line if entry not in waiting]
    entries = [_working(entry, rows) for entry in working]
    entries += [_waiting(entry, place, len(waiting)) for place, entry in enumerate(waiting)]
    return f'<section class="queue"><h3>{tr("Queue")}</h3><ol>{"".join(entries)}</ol></section>' if entries else ""


def _working(entry: QueueEntry, rows: RowCache) -> str:
    row = rows.row(entry.run) if entry.run else None
    facts = " · ".join(map(str, (row.state, *row.facts))) if row else tr("At work")
    label, asked = (
        (tr("Stop and keep"), control.asked(entry.run, Request.STOP)) if entry.run else (tr("Stop"), _stops(entry))
    )
    stop = _button("cancel", entry, tr("Stopping…") if asked else label, disabled=asked)
    kind = row.kind if row else "running"
    return _entry(entry, kind, facts, stop)


def _waiting(entry: QueueEntry, place: int, count: int) -> str:
    moves = ""
    if count > 1:
        moves = _button("up", entry, icon("up"), tr("Earlier"), disabled=place == 0)
        moves += _button("down", entry, icon("later"), tr("Later"), disabled=place == count - 1)
    left = _stops(entry) if entry.job else bool(entry.run) and control.asked(entry.run, Request.STOP)
    leave = _button("cancel", entry, tr("Leaving…") if left else tr("Take out"), disabled=left)
    return _entry(entry, "queued", tr("Waiting, number {place}", place=place + 1), moves + leave)


def _entry(entry: QueueEntry, kind: str, facts: str, acts: str) -> str:
    title = words.text(_title(entry))
    return (
        f'<li class="{kind}"><span class="what"><b>{title}</b><span><span class="dot"></span>{words.text(facts)}</span>'
        f'</span><span class="acts">{acts}</span></li>'
    )


def _title(entry: QueueEntry) -> str:
    title = str(entry.title)
    return title if entry.run else f"{title[0].upper()}{title[1:]}"


def _stops(entry: QueueEntry) -> bool:
    return Path(entry.folder, "stop").exists()


def _button(act: str, entry: QueueEntry, label: str, name: str = "", disabled: bool = False) -> str:
    told = words.text(f"{name or label}: {_title(entry)}")
    key, off = words.text(entry.key), " disabled" * disabled
    sign = ' class="sign"' if name else ""
    return f'<button type="button" data-act="{act}" data-key="{key}" aria-label="{told}"{sign}{off}>{label}</button>'


PRESS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  if (button) trigger('click', {act: button.dataset.act, key: button.dataset.key});
});
"""
"""Reports what was pressed; for ``gr.HTML(js_on_load=...)``."""
