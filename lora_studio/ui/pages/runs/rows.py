"""The list of runs as HTML: what each is, how far it came, and what can be done with it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from lora_studio.events import State
from lora_studio.jobs import runner
from lora_studio.jobs.glance import glance
from lora_studio.jobs.view import RunView
from lora_studio.language import tr
from lora_studio.runs import Run
from lora_studio.ui import images, words
from lora_studio.ui.pages.runs import state_words

_REMEMBERED = 2_000
"""Runs whose rows are kept in memory."""


class RunRow(NamedTuple):
    """A run in the list."""

    name: str
    kind: str
    """Its state as a class of the page's rules."""
    state: str
    facts: tuple[str, ...]
    created: float
    """In seconds since the epoch."""
    picture: str
    """The address of its last preview; empty without one."""
    alive: bool


class RowCache:
    """The rows of the runs in ``outputs``, for all tabs. A log is read again only when something has changed."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self._known: OrderedDict[Path, tuple[tuple[Any, ...], RunRow]] = OrderedDict()
        self._lock = threading.Lock()

    def row(self, run: Run) -> RunRow:
        """The row of ``run`` now."""
        with self._lock:
            mark = _stamp(run)
            before, row = self._known.get(run.folder, ((), None))
            if row is None or before != mark:
                row = self._read(run)
                self._known[run.folder] = mark, row
            self._known.move_to_end(run.folder)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
            return row

    def _read(self, run: Run) -> RunRow:
        view = glance(run)
        if not view.state.ended and not runner.alive(run):
            runner.reap(run)
            view = glance(run)
        state, facts = state_words.named(run, view), tuple(_facts(view))
        kind, alive = state_words.kind(run, view), runner.alive(run)
        return RunRow(run.name, kind, state, facts, run.modified, self._picture(run, view), alive)

    def _picture(self, run: Run, view: RunView) -> str:
        """The latest preview of the first prompt, or the base model's."""
        drawn = [one for one in view.previews if not one.base] or view.previews
        newest = max(drawn, key=lambda one: (one.step, -one.index), default=None)
        source = images.inside(run.folder, newest.path) if newest else None
        if source is None:
            return ""
        try:
            return images.address(images.copy(source, self.outputs, images.THUMBNAIL, images.preview))
        except OSError:  # the row is shown without it
            return ""


def _stamp(run: Run) -> tuple[Any, ...]:
    """What changes with all that a row says."""
    try:
        status = os.stat(run.events_file)
        log = status.st_size, status.st_mtime_ns, status.st_ctime_ns
    except OSError:
        log = 0, 0, 0
    return (*log, run.modified, runner.alive(run))


def _facts(view: RunView) -> list[str]:
    """How far it came and how long that took, or how long it will take."""
    total = view.started.total_steps if view.started else 0
    done = view.finished.steps if view.finished else view.last.step if view.last else 0
    seconds = view.finished.seconds if view.finished else view.last.seconds if view.last else 0.0
    facts = []
    if view.finished and not view.finished.stopped and done == total:
        facts.append(words.counted(done, "step"))
    elif total:
        facts.append(tr("step {done:,} of {total:,}", done=done, total=total))
    if view.state is State.RUNNING and view.last and view.last.eta:
        facts.append(tr("about {duration} left", duration=words.duration(view.last.eta)))
    elif view.state.ended and seconds:
        facts.append(words.duration(seconds))
    return facts


def html(rows: Sequence[RunRow], chosen: str, first: str, more: int) -> str:
    """The list.

    Args:
        rows: those that are shown.
        chosen: the run that the page shows.
        first: the run that is to be compared with another one, once that is chosen.
        more: how many others there are.
    """
    now = datetime.now()
    shown = "".join(_row(row, row.name == chosen, first, now) for row in rows)
    step = min(more, PAGE)
    label = tr("Show {step:,} more of {more:,}", step=step, more=more)
    button = f'<button type="button" class="way" data-act="more">{label}</button>'
    return f'<ul class="run-list">{shown}</ul>{button if more else ""}'


PAGE = 40
"""Runs that are shown at first, and that each press shows more."""


def _row(row: RunRow, chosen: bool, first: str, now: datetime) -> str:
    name = words.text(row.name)
    picture = f'<img src="{words.text(row.picture)}" alt="" loading="lazy">' if row.picture else "<i></i>"
    facts = " · ".join(map(str, (row.state, *row.facts)))
    current = ' aria-current="true"' if chosen else ""
    return (
        f'<li data-run="{name}" class="{row.kind}"><button class="show" data-act="show"{current}>'
        f'{picture}<span><b>{name}</b><span><span class="dot"></span>{words.text(facts)}</span>'
        f"<small>{words.moment(row.created, now)}</small></span></button>"
        f'<span class="acts">{_acts(row, name, first)}</span></li>'
    )


def _acts(row: RunRow, name: str, first: str) -> str:
    pressed = f' aria-pressed="{str(row.name == first).lower()}"'
    label = tr("With this") if first and row.name != first else tr("Compare")
    compare = _button("compare", label, name, pressed)
    if row.alive:  # it can be neither renamed nor deleted
        return compare
    return compare + _button("rename", tr("Rename"), name) + _button("delete", tr("Delete"), name)


def _button(act: str, label: str, name: str, more: str = "") -> str:
    return f'<button data-act="{act}" aria-label="{label}: {name}"{more}>{label}</button>'


LIST = """
let top = 0, focused = null;
const list = () => element.querySelector('.run-list');
const rove = row => {
  for (const button of element.querySelectorAll('li button')) button.tabIndex = button.closest('li') === row ? 0 : -1;
};
const settle = () => {
  if (!list()) return;
  list().scrollTop = top;
  const rows = [...element.querySelectorAll('li')];
  const here = rows.find(row => row.dataset.run === focused?.run);
  rove(here || element.querySelector('[aria-current]')?.closest('li') || rows[0]);
  if (here && (document.activeElement === document.body || !document.activeElement))
    here.querySelector(`[data-act="${focused.act}"]`)?.focus({preventScroll: true});
};
element.addEventListener('scroll', event => { if (event.target === list()) top = list().scrollTop; }, true);
element.addEventListener('focusin', event => {
  const row = event.target.closest('li');
  focused = row && {run: row.dataset.run, act: event.target.dataset.act};
  if (row) rove(row);
});
element.addEventListener('focusout', event => { if (event.relatedTarget) focused = null; });
element.addEventListener('keydown', event => {
  const row = event.target.closest('li'), down = {ArrowDown: 1, ArrowUp: -1}[event.key];
  if (!row || !down) return;
  event.preventDefault();
  const next = down > 0 ? row.nextElementSibling : row.previousElementSibling;
  (next?.querySelector(`[data-act="${event.target.dataset.act}"]`) || next?.querySelector('.show'))?.focus();
});
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  if (!button) return;
  const run = button.closest('[data-run]')?.dataset.run || '';
  const {act} = button.dataset, on = button.ariaPressed !== 'true';
  trigger(act === 'show' ? 'input' : 'click', {act, run, on});
});
watch('value', () => requestAnimationFrame(settle));
settle();
"""
"""Reports what was pressed. Keeps the place in the list and the focus when the list is drawn anew; the arrow keys go
from run to run, and Tab goes through one run alone; for ``gr.HTML(js_on_load=...)``.
"""
