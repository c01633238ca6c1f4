"""The state of a run in words, the same wherever it is shown."""

from __future__ import annotations

from lora_studio.errors import SettingsError
from lora_studio.events import State
from lora_studio.jobs import queue, runner
from lora_studio.jobs.view import RunView
from lora_studio.language import tr
from lora_studio.runs import Run
from lora_studio.ui import words

_WITHIN = {
    State.QUEUED: tr("waiting"),
    State.PREPARING: tr("preparing"),
    State.RUNNING: tr("training"),
    State.PAUSED: tr("paused"),
    State.STOPPING: tr("stopping"),
    State.FINISHED: tr("finished"),
    State.FAILED: tr("failed"),
    State.INTERRUPTED: tr("interrupted"),
}


def named(run: Run, view: RunView) -> str:
    """The run's state: "Training". One that left the queue before its turn is not interrupted: nobody disturbed it."""
    if view.left_queue:
        return tr("Taken out of the queue")
    if view.stopped_early:
        return tr("Stopped")
    if view.state is State.QUEUED and not runner.alive(run):
        return tr("Damaged") if damaged(run) else tr("Not started")
    if starting(run, view):
        return tr("Starting")
    return at_work(view)


def starting(run: Run, view: RunView) -> bool:
    """Whether the run has its turn, and its process is on the way."""
    return view.state is State.QUEUED and runner.alive(run) and not queue.waits_for(run)


def at_work(view: RunView) -> str:
    """The state, which is "Stopping" only where a run ends before its last step."""
    return tr("Finishing") if _finishing(view) else words.STATES[view.state]


def within(view: RunView) -> str:
    """The state as ``at_work`` says it, within a sentence."""
    return tr("finishing") if _finishing(view) else _WITHIN[view.state]


def _finishing(view: RunView) -> bool:
    return view.state is State.STOPPING and view.progress >= 1


def kind(run: Run, view: RunView) -> str:
    """The state as a class of the page's rules."""
    return "idle" if view.never_began or (view.state is State.QUEUED and not runner.alive(run)) else view.state.value


def damaged(run: Run) -> SettingsError | None:
    """Why the run can be neither started nor resumed; None if it can."""
    try:
        run.settings()
    except SettingsError as error:
        return error
    return None


def plain(run: Run, view: RunView) -> str:
    """The state for scripts: that of the log, but ``not started`` for a run that was stopped before its first step,
    has left the queue or never was in it, and ``interrupted`` for one that has lost its worker without a word.
    """
    if kind(run, view) == "idle":
        return "not started"
    return view.state.value if view.state.ended or runner.alive(run) else State.INTERRUPTED.value
