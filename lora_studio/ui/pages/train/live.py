"""The live half of the page: everything it shows is folded from the runs' folders, so that any tab, at any time, shows
the same.

A tick sends a tab only what differs from what it sent that tab before: nothing flickers, and what the user scrolled or
slid stays.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio import runs
from lora_studio.events import State
from lora_studio.jobs import control, queue, runner
from lora_studio.jobs.control import Request
from lora_studio.jobs.view import Follower, RunView
from lora_studio.runs import Run, checkpoints
from lora_studio.ui import plots
from lora_studio.ui.pages.train import previews, result, saved, status

_FOLLOWED, _LISTED = 40, 30
"""Runs that are kept folded, and runs that the page offers."""


class Watch:
    """Folds the runs of one outputs folder for all tabs, reading of each log only what is new."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self._followers: OrderedDict[tuple[Path, int], Follower] = OrderedDict()
        self._lock = threading.RLock()

    @contextmanager
    def view(self, run: Run) -> Iterator[RunView]:
        """The run as of now; it does not change within the ``with``."""
        with self._lock:
            follower = self._follower(run)
            seen = follower.update()
            if not seen.state.ended:
                runner.reap(run)
                seen = follower.update()
            yield seen

    def _follower(self, run: Run) -> Follower:
        key = (run.folder, run.settings_file.stat().st_mtime_ns)
        follower = self._followers.setdefault(key, Follower(run))
        self._followers.move_to_end(key)
        while len(self._followers) > _FOLLOWED:
            self._followers.popitem(last=False)
        return follower

    def summary(self) -> list[dict[str, Any]]:
        """Each run's name, state and progress (0…1), the newest first."""
        found = []
        for run in runs.existing(self.outputs):
            with self.view(run) as view:
                found.append({"name": run.name, "state": view.state.value, "progress": view.progress})
        return found

    def find(self, name: str) -> Run | None:
        """The run of that name, None if it has gone."""
        run = Run(self.outputs / name)
        return run if name and run.settings_file.is_file() else None


@dataclass
class Tab:
    """What one browser tab looks at."""

    run: str = ""
    newest: str = ""
    """The newest run when the tab last looked: a newer one, started from wherever, is shown at once."""
    step: int | None = None
    """The preview's step; None is the latest."""
    prompt: int = 0
    smoothing: float = 0.9
    asked: tuple[str, ...] = ()
    """What has changed since the run's newest state: shown, and gone on with at a second press."""
    seen: Any = None
    """What the last tick drew from; while it stays the same there is nothing to draw."""
    sent: dict[str, Any] = field(default_factory=dict)

    def look_at(self, name: str) -> None:
        """Turns to another run."""
        if name != self.run:
            self.run, self.step, self.prompt, self.asked = name, None, 0, ()

    def follow(self, names: list[str]) -> None:
        """Turns to the newest run if it is new, or if the run that was shown has gone."""
        newest = names[0] if names else ""
        if newest != self.newest or self.run not in names:
            self.newest = newest
            self.look_at(newest)

    def unsent(self, name: str, update: dict[str, Any]) -> Any:
        """``update``, or nothing where the tab has been sent just that."""
        if self.sent.get(name) == update:
            return gr.skip()
        self.sent[name] = update
        return gr.update(**update)


PARTS = (
    "pill", "start", "runs", "blank", "run_card", "state", "pause", "go_on", "mend", "stop", "preview", "states_card", "states",
    "result_card", "result", "film_card", "film", "pair", "loss_card", "loss",
)  # fmt: skip
"""The parts of the page that a tick may change, in the order of its outputs."""


def tick(tab: Tab, watch: Watch) -> list[Any]:
    """Updates of ``PARTS`` for one tab."""
    try:
        return _tick(tab, watch)
    except OSError:  # a folder went away while it was read, or its drive did: the next tick shows what is there then
        return [gr.skip()] * len(PARTS)


def _tick(tab: Tab, watch: Watch) -> list[Any]:
    listed = runs.existing(watch.outputs)[:_LISTED]
    tab.follow([run.name for run in listed])
    line = runner.at_work(watch.outputs)
    sight = _sight(tab, listed, line)
    if sight == tab.seen:
        return [gr.skip()] * len(PARTS)
    run = watch.find(tab.run)
    updates = (_full(tab, run, watch) if run else _empty()) | _at_work(line, watch)
    updates["runs"] = _listing(tab, listed, watch)
    tab.seen = _sight(tab, listed, line)
    return [tab.unsent(name, updates[name]) for name in PARTS]


def _sight(tab: Tab, listed: list[Run], line: list[Run]) -> tuple:
    """Everything that the page is drawn from, in short."""
    states = tuple((one.step, one.starred) for run in listed if run.name == tab.run for one in checkpoints.listed(run))
    logs = tuple((run.name, run.events_file.stat().st_size if run.events_file.exists() else 0) for run in listed)
    asked = tuple(control.asked(run, request) for run in listed if run.name == tab.run for request in Request)
    return logs, asked, states, line, tab.run, tab.step, tab.prompt, tab.smoothing, tab.asked


def _listing(tab: Tab, listed: list[Run], watch: Watch) -> dict[str, Any]:
    choices = []
    for run in listed:
        with watch.view(run) as view:
            choices.append((status.label(run, view), run.name))
    return {"choices": choices, "value": tab.run or None, "visible": bool(listed)}


def _empty() -> dict[str, dict[str, Any]]:
    hidden = {name: {"visible": False} for name in PARTS}
    return hidden | {
        "pill": {"value": ""},
        "blank": {"visible": True},
        "start": {"value": "Start training", "interactive": True, "visible": True},
    }


def _full(tab: Tab, run: Run, watch: Watch) -> dict[str, dict[str, Any]]:
    with watch.view(run) as view:
        tab.asked = tab.asked if view.state.ended else ()
        shown = _empty() | _controls(tab, run, view) | _drawn(tab, run, view, watch.outputs) | _saved(run)
        shown |= {
            "blank": {"visible": False},
            "run_card": {"visible": True},
            "state": {"value": status.line(run, view, tab.asked), "visible": True},
        }
        return shown | _made(run, view, watch.outputs)


def _controls(tab: Tab, run: Run, view: RunView) -> dict[str, dict[str, Any]]:
    stopping, state = control.asked(run, Request.STOP), view.state
    pausing, drawing = control.asked(run, Request.PAUSE), control.asked(run, Request.PREVIEW)
    again = status.go_on_label(view) if state.ended else "Go on"
    again = "Go on all the same" if tab.asked else again
    waiting = state is State.QUEUED and bool(queue.ahead(run))
    stop = "Leave the queue" if waiting else "Stop" if state is State.PREPARING else "Stop and keep"
    mend = status.mend_label(view)
    return {
        "pause": {"visible": state is State.RUNNING, "interactive": not pausing and not stopping},
        "go_on": {
            "visible": bool(again) if state.ended else state is State.PAUSED,
            "value": again,
            "interactive": not stopping,
            "variant": "secondary" if mend else "primary",
        },
        "mend": {"visible": bool(mend), "value": mend or "Take it and go on"},
        "stop": {
            "visible": waiting or state in (State.PREPARING, State.RUNNING, State.PAUSED),
            "interactive": not stopping,
            "value": stop,
        },
        "preview": {
            "visible": state is State.RUNNING,
            "interactive": not drawing and not stopping,
            "value": "Drawing…" if drawing else "Preview now",
        },
    }


def _drawn(tab: Tab, run: Run, view: RunView, outputs: Path) -> dict[str, dict[str, Any]]:
    film = previews.develop(view)
    if tab.prompt not in film.prompts:
        tab.prompt = min(film.prompts, default=0)
    total = 0 if view.state.ended or not view.started else view.started.total_steps
    chart = plots.loss(
        [(one.step, one.loss) for one in view.steps],
        [(one.step, one.loss) for one in view.validations],
        total,
        tab.smoothing,
    )
    return {
        "loss_card": {"visible": bool(view.steps)},
        "loss": {"value": chart, "visible": True},
        "film_card": {"visible": bool(film.prompts)},
        "film": {"value": previews.html(run, film, tab.step, tab.prompt, outputs), "visible": True},
        "pair": {"value": previews.pair(run, film, tab.step, tab.prompt, outputs), "visible": True},
    }


def _made(run: Run, view: RunView, outputs: Path) -> dict[str, dict[str, Any]]:
    made = result.html(run, view, outputs)
    return {"result_card": {"visible": True}, "result": {"value": made, "visible": True}} if made else {}


def _saved(run: Run) -> dict[str, dict[str, Any]]:
    states = checkpoints.listed(run)
    return (
        {"states_card": {"visible": True}, "states": {"value": saved.html(states), "visible": True}} if states else {}
    )


def _at_work(line: list[Run], watch: Watch) -> dict[str, dict[str, Any]]:
    """The run at work, whichever the tab shows: in the page's head, and as the reason why another would have to wait."""
    if not line:
        return {}
    with watch.view(line[0]) as view:
        return {
            "pill": {"value": status.pill(line[0], view, len(line) - 1)},
            "start": {"value": "Add to the queue", "interactive": True, "visible": True},
        }
