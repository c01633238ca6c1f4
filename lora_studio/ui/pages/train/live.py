"""The live half of the page. All it shows is read from the runs' folders, so every tab shows the same at any time.

A tick sends a tab only what differs from what that tab was sent before. So nothing flickers, and scroll positions and
sliders stay.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio import files, runs
from lora_studio.errors import RunError, StudioError
from lora_studio.events import State
from lora_studio.jobs import control, queue, runner
from lora_studio.jobs.control import Request
from lora_studio.jobs.queue import QueueEntry
from lora_studio.jobs.view import SMOOTHING, Follower, RunView
from lora_studio.language import tr
from lora_studio.runs import Run, Unreadable, checkpoints, renaming
from lora_studio.ui import words
from lora_studio.ui.pages.runs import headline, state_words
from lora_studio.ui.pages.train import drawn, judged_parts, result, said, status, warned
from lora_studio.ui.pages.train.judged import EvaluationCache, fingerprint

_FOLLOWED = 40
"""Runs whose views are kept in memory."""


class RunWatcher:
    """The views of the runs in one outputs folder, for all tabs. Reads of each log only what is new."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self.evaluations = EvaluationCache()
        self._followers: OrderedDict[tuple[Path, float], Follower] = OrderedDict()
        self._lock = threading.RLock()

    @contextmanager
    def view(self, run: Run) -> Generator[RunView]:
        """The run's current view. It does not change within the ``with``."""
        with self._lock:
            follower = self._follower(run)
            seen = follower.update()
            if not seen.state.ended:
                runner.reap(run)
                seen = follower.update()
            yield seen

    def _follower(self, run: Run) -> Follower:
        key = (run.folder, run.modified)
        follower = self._followers.setdefault(key, Follower(run))
        self._followers.move_to_end(key)
        while len(self._followers) > _FOLLOWED:
            self._followers.popitem(last=False)
        return follower

    def summary(self) -> list[dict[str, Any]]:
        """Each run's name, state and progress (0 to 1), newest first."""
        found = []
        for run in runs.existing(self.outputs):
            with self.view(run) as view:
                state = state_words.plain(run, view)
                found.append({"name": run.name, "state": state, "progress": view.progress})
        return found

    def find(self, name: str) -> Run | None:
        """The run of that name, or that had it before it was renamed; None if it does not exist."""
        if not name or not files.is_text(name):
            return None
        run = Run(self.outputs / renaming.follow(name, self.outputs))
        return run if os.path.isfile(run.settings_file) else None


@dataclass
class TabState:
    """What one browser tab shows."""

    run: str = ""
    newest: str = ""
    """The newest run at the last tick. A newer one is shown at once, wherever it was started."""
    step: int | None = None
    """The step that the user chose; None is the latest preview, or the state that is proposed once a run has ended."""
    prompt: int = 0
    comparing: bool = False
    """Whether the chosen frame is shown large, beside the base model's or that of the step ``against``."""
    against: int | None = None
    smoothing: float = SMOOTHING
    unconfirmed: tuple[str, ...] = ()
    """What has changed since the run's newest state. It is shown, and a second press on Resume accepts it."""
    refused: StudioError | None = None
    """Why the last press on a button of the run failed. It is shown until the next press or another state of the run.
    """
    refused_in: State | None = None
    moved: dict[str, object] = field(default_factory=dict)
    """Where the run's pictures or model files are now, by setting, until it resumes with them there."""
    heard: said.RunNews = field(default_factory=said.RunNews)
    news: str = ""
    """What a screen reader is to say with the next tick."""
    work: said.WatchedWork = field(default_factory=said.WatchedWork)
    drawn_from: tuple | None = None
    """The fingerprint of what the last tick drew. While it stays the same there is nothing to draw."""
    sent: dict[str, Any] = field(default_factory=dict)

    def show(self, name: str) -> None:
        """Switches to another run."""
        if name != self.run:
            self.run, self.step, self.prompt, self.unconfirmed, self.refused = name, None, 0, (), None
            self.moved, self.heard, self.comparing, self.against = {}, said.RunNews(), False, None

    @property
    def looks_at(self) -> tuple:
        """What the user chose to see, and what was answered to the last press."""
        chosen = self.run, self.step, self.prompt, self.comparing, self.against, self.smoothing
        return *chosen, self.unconfirmed, self.refused

    @property
    def lost(self) -> str:
        """The setting whose folder or file was not found by the last press; empty if none."""
        where = self.refused.where if self.refused else ""
        return where if where in PLACES else ""

    def follow(self, names: list[str]) -> None:
        """Switches to the newest run if it is new, or if the run that was shown no longer exists. ``names``: newest
        first.
        """
        newest = names[0] if names else ""
        if newest != self.newest or self.run not in names:
            self.newest = newest
            self.show(newest)

    def unsent(self, updates: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Those of ``updates`` that the tab has not been sent, by part."""
        new = {name: update for name, update in updates.items() if self.sent.get(name) != update}
        self.sent |= new
        return {name: gr.update(**update) for name, update in new.items()}


_CAN_STOP = (State.PREPARING, State.RUNNING, State.PAUSED)
PLACES = {
    "data": tr("Where the pictures are now"),
    "base": tr("Where the base model is now"),
    "vae": tr("Where the VAE is now"),
}
"""What may have moved since a run began -> what its field is called."""
PARTS = (
    "pill", "start", "runs", "all_runs", "blank", "run_card", "state", "place", "pause", "resume", "apply", "stop",
    "preview", "tell", "result", "warnings", "film_card", "chosen", "pair", "film", "loss_card", "loss", "said",
    *judged_parts.PARTS,
)  # fmt: skip
"""The parts of the page that a tick may change."""


def tick(tab: TabState, watcher: RunWatcher) -> dict[str, Any]:
    """Updates of the ``PARTS`` that have changed for one tab, by name."""
    listing = runs.listing(watcher.outputs)
    listed, line = listing.runs, queue.line(watcher.outputs)
    if any(entry.run and runner.waits(entry.run) for entry in line):
        with suppress(OSError):  # the next tick tries it again
            runner.keep(watcher.outputs)
    tab.run = renaming.follow(tab.run, watcher.outputs)
    tab.follow([run.name for run in listed])
    gone = next((one for one in listing.unreadable if Path(one.path) == watcher.outputs), None)
    if (_fingerprint(tab, listed, line), gone) == tab.drawn_from:
        return {}
    run = watcher.find(tab.run)
    updates = _unreadable(gone) if gone else _full(tab, run, watcher) if run else _empty()
    updates |= _at_work(line, watcher) | headline.parts(tab.run, len(listed)) | _said(tab, line, watcher)
    tab.drawn_from = _fingerprint(tab, listed, line), gone
    return tab.unsent(updates)


def _fingerprint(tab: TabState, listed: list[Run], line: list[QueueEntry]) -> tuple:
    """Everything that the page is drawn from, in short."""
    states = tuple((_saved_states(run), fingerprint(run)) for run in listed if run.name == tab.run)
    shown = [run for run in listed if run.name == tab.run] + [one.run for one in line[:1] if one.run]
    logs = len(listed), *((run.name, *_stamp(run.events_file)) for run in shown)
    asked = tuple(control.asked(run, request) for run in listed if run.name == tab.run for request in Request)
    return logs, asked, states, line, *tab.looks_at


def _stamp(path: Path) -> tuple[int, int]:
    """What changes with a file's content and with its permissions."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_size, status.st_ctime_ns


def _saved_states(run: Run) -> tuple[list[tuple[int, bool]], str]:
    """Step and star of each saved state, and why they cannot be listed, if so."""
    try:
        return [(one.step, one.starred) for one in checkpoints.listed(run)], ""
    except RunError as error:
        return [], error.what


def _unreadable(gone: Unreadable) -> dict[str, dict[str, Any]]:
    """Instead of a run, why the outputs folder cannot be read."""
    return _empty() | {
        "blank": {"visible": False},
        "run_card": {"visible": True},
        "state": {"value": words.notice("wrong", gone.what, gone.path, gone.do), "visible": True},
    }


def _empty() -> dict[str, dict[str, Any]]:
    hidden = {name: {"visible": False} for name in PARTS}
    return hidden | {
        "pill": {"value": ""},
        "blank": {"visible": True},
        "start": {"value": status.start_label(()), "interactive": True, "visible": True},
    }


def _full(tab: TabState, run: Run, watcher: RunWatcher) -> dict[str, dict[str, Any]]:
    with watcher.view(run) as view:
        tab.unconfirmed = tab.unconfirmed if view.state.ended else ()
        if view.state is not tab.refused_in and tab.refused_in is not None:
            tab.refused = None
        tab.refused_in = view.state if tab.refused else None
        found = watcher.evaluations.of(run)
        step = tab.step if tab.step is not None else found.proposed if view.state.ended else None
        shown = _empty() | _controls(tab, run, view) | drawn.charts(tab.smoothing, view, found)
        shown |= drawn.film(tab, run, view, found, step, watcher.outputs)
        shown |= judged_parts.updates(run, view, found, step, watcher.outputs)
        tab.news = tab.heard.news(run, view, found)
        shown |= {
            "blank": {"visible": False},
            "run_card": {"visible": True},
            "state": {"value": status.line(run, view, tab.unconfirmed, tab.refused), "visible": True},
            "tell": {"visible": not view.state.ended},
            "warnings": {"value": warned.html(view.warnings), "visible": bool(view.warnings)},
            "place": {"visible": bool(tab.lost), "label": PLACES.get(tab.lost, "")},
        }
        return shown | _result(run, view, watcher.outputs)


def _controls(tab: TabState, run: Run, view: RunView) -> dict[str, dict[str, Any]]:
    stopping, state = control.asked(run, Request.STOP), view.state
    pausing, drawing = control.asked(run, Request.PAUSE), control.asked(run, Request.PREVIEW)
    idle = state is State.QUEUED and not runner.alive(run) and not state_words.damaged(run)
    resume = status.resume_label(view) if state.ended or idle else tr("Resume")
    resume = tr("Resume anyway") if tab.unconfirmed else resume
    waiting = state is State.QUEUED and bool(queue.ahead(run))
    stop = tr("Leave the queue") if waiting else tr("Stop and keep") if view.steps else tr("Stop")
    apply = status.apply_label(view)
    return {
        "pause": {"visible": state is State.RUNNING, "interactive": not pausing and not stopping},
        "resume": {
            "visible": bool(resume) if state.ended or idle else state is State.PAUSED,
            "value": resume,
            "interactive": state.ended or idle or not stopping,  # a worker that was killed leaves the request behind
            "variant": "secondary" if apply else "primary",
        },
        "apply": {"visible": bool(apply), "value": apply},
        "stop": {
            "visible": waiting or state_words.starting(run, view) or state in _CAN_STOP,
            "interactive": not stopping,
            "value": stop,
        },
        "preview": {
            "visible": state is State.RUNNING,
            "interactive": not drawing and not stopping,
            "value": tr("Drawing…") if drawing else tr("Preview now"),
        },
    }


def _result(run: Run, view: RunView, outputs: Path) -> dict[str, dict[str, Any]]:
    try:
        shown = result.html(run, view, outputs)
    except OSError as error:
        shown = _notice(files.refusal(error, tr("The adapter cannot be shown"), run.folder))
    except StudioError as error:
        shown = _notice(error)
    return {"result": {"value": shown, "visible": True}} if shown else {}


def _said(tab: TabState, line: list[QueueEntry], watcher: RunWatcher) -> dict[str, dict[str, Any]]:
    """What is said beside what is shown, and in the browser's title."""
    if seen := watcher.find(tab.work.run):
        with watcher.view(seen) as view:
            tab.work.note_end(view)
    first = line[0].run if line else None
    with watcher.view(first) if first else nullcontext() as view:
        title = tab.work.title(line, view)
    told, tab.news = said.html(tab.news, title, tab.work.ended), ""
    return {"said": {"value": told, "visible": True}}


def _notice(error: StudioError) -> str:
    return words.notice("wrong", error.what, error.where, error.do)


def _at_work(line: list[QueueEntry], watcher: RunWatcher) -> dict[str, dict[str, Any]]:
    """What is at work now, whatever the tab shows: it stands in the page's header, and a run has to wait for it."""
    if not line:
        return {}
    with watcher.view(line[0].run) if line[0].run else nullcontext() as view:
        return {
            "pill": {"value": status.pill(line[0], view, len(line) - 1)},
            "start": {"value": status.start_label(line), "interactive": True, "visible": True},
        }
