"""Where a run stands, as HTML: its state in plain words, how far it is, how fast, how long still, and what to do when
it is over.
"""

from __future__ import annotations

import time

from lora_studio.config.settings import SPECS
from lora_studio.events import State
from lora_studio.jobs import control, queue
from lora_studio.jobs.control import Request
from lora_studio.jobs.view import RunView
from lora_studio.runs import Run
from lora_studio.ui import words

_SHOWN_WARNINGS = 12
_LOG_LINES = 40

EMPTY = (
    '<div class="blank"><div class="sketch" aria-hidden="true"><i></i><i></i><i></i></div><h2>Nothing trains yet</h2>'
    "<p>Choose pictures on this page and press <b>Start training</b>. The loss and the previews will move here while it learns; "
    "closing this tab does not stop it.</p></div>"
)


def line(run: Run, view: RunView, asked: tuple[str, ...] = ()) -> str:
    """The state of ``run``: one sentence, a bar and a few figures; and what has changed, where the user is ``asked``
    whether to go on all the same.
    """
    done = 100 * share(view)
    bar = (
        ""
        if view.state.ended
        else f'<div class="bar" role="progressbar" aria-valuenow="{done:.0f}"><i style="width:{done:.1f}%"></i></div>'
    )
    sentence = f'<p class="sentence"><span class="dot"></span><b>{words.STATES[view.state]}</b> <span>{words.text(_sentence(run, view))}</span></p>'
    return f'<div class="state {view.state}">{sentence}{bar}{words.facts(_facts(run, view))}{_trouble(run, view)}{_question(asked)}</div>'


def share(view: RunView) -> float:
    """How much is done, 0…1: of the preparation's stage while preparing, then of the steps."""
    if view.state is State.PREPARING and view.preparing and view.preparing.total and not view.started:
        return view.preparing.done / view.preparing.total
    return min(view.progress, 1.0)


def _sentence(run: Run, view: RunView) -> str:
    asked_stop = control.asked(run, Request.STOP)
    match view.state:
        case State.QUEUED:
            return _place(run)
        case State.PREPARING if asked_stop:
            return "· it will stop as soon as this is done."
        case State.PREPARING:
            return _preparation(view)
        case State.RUNNING if asked_stop:
            return f"{_steps(view)} · stopping after this one."
        case State.RUNNING if control.asked(run, Request.PAUSE):
            return f"{_steps(view)} · pausing after this one."
        case State.PAUSED:
            return f"at {_steps(view)}. It waits for as long as you like."
        case State.STOPPING:
            return "and keeping what it has learned: saving and drawing the last previews."
        case State.FINISHED:
            return _ending(view)
        case State.FAILED:
            return f"at {_steps(view)}." if view.last else "before the first step."
        case State.INTERRUPTED if view.left_queue:
            return "· it left the queue before its turn."
        case State.INTERRUPTED:
            return (
                f"at {_steps(view)}: its process vanished."
                if view.last
                else "before the first step: its process vanished."
            )
    return _steps(view)


def _place(run: Run) -> str:
    waits = queue.waits_for(run)
    return f"for {waits}. It starts by itself." if waits else "for its process to start."


def _steps(view: RunView) -> str:
    done = view.last.step if view.last else view.started.first_step if view.started else 0
    return f"step {done:,} of {view.started.total_steps:,}" if view.started else f"step {done:,}"


def _preparation(view: RunView) -> str:
    if view.started:
        return "· drawing what the base model makes of the prompts."
    if not view.preparing:
        return "· looking at the pictures, loading the base model."
    return f"· {view.preparing.stage}" + (
        f", {view.preparing.done:,} of {view.preparing.total:,}" if view.preparing.total > 1 else ""
    )


def _ending(view: RunView) -> str:
    end = view.finished
    if end is None:
        return ""
    how = (
        f"where you stopped it, after {words.counted(end.steps, 'step')}"
        if end.stopped
        else f"all {words.counted(end.steps, 'step')}"
    )
    return f"{how}, in {words.duration(end.seconds)}."


def _facts(run: Run, view: RunView) -> list[str]:
    facts = []
    if parent := run.parent():
        facts.append(f"{'branched' if parent['goes_on'] else 'begun'} from {parent['run']}, step {parent['step']:,}")
    if view.last and view.state is State.RUNNING:
        pace = view.last.images_per_second
        facts.append(
            f"{pace:.1f} pictures a second" if pace >= 0.95 or not pace else f"{1 / pace:.1f} seconds a picture"
        )
        facts.append(f"about {words.duration(view.last.eta)} left")
    if view.started:
        kept_out = view.started.validation_images
        facts.append(words.counted(view.started.images, "picture") + (f" + {kept_out} to validate" if kept_out else ""))
        facts.append(", ".join(filter(None, (view.started.device, view.started.precision, view.started.engine))))
    if view.checkpoints and view.state not in (State.FINISHED,):
        facts.append(f"saved at step {view.checkpoints[-1].step:,}")
    return facts


def _trouble(run: Run, view: RunView) -> str:
    """What ended the run, with its log where the fault is the studio's, and its warnings."""
    parts = []
    if view.state is State.FAILED and view.failed:
        parts.append(words.notice("wrong", view.failed.what, view.failed.where, view.failed.do))
        if view.failed.ours:
            parts.append(
                f'<details class="log"><summary>Details from worker.log</summary><pre>{words.text(_tail(run))}</pre></details>'
            )
    if view.state is State.INTERRUPTED and not view.left_queue:
        step = view.checkpoints[-1].step if view.checkpoints else 0
        kept = (
            f"What it had learned by step {step:,} is kept: press Go on."
            if step
            else "It had saved nothing yet; its settings are kept."
        )
        parts.append(
            words.notice(
                "wrong", "The process that trained was ended from outside, or the machine lost power.", do=kept
            )
        )
    different = {(warning.what, warning.where): warning for warning in view.warnings}
    parts += [
        words.notice("warned", warning.what, warning.where, warning.do)
        for warning in list(different.values())[-_SHOWN_WARNINGS:]
    ]
    return "".join(parts)


def _tail(run: Run) -> str:
    try:
        return "\n".join(run.log_file.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:])
    except OSError:
        return "The log cannot be read."


def _question(asked: tuple[str, ...]) -> str:
    if not asked:
        return ""
    changes = "".join(f"<li>{words.text(one)}</li>" for one in asked[:_SHOWN_WARNINGS])
    more = f"<li>And {len(asked) - _SHOWN_WARNINGS} more.</li>" if len(asked) > _SHOWN_WARNINGS else ""
    after = (
        "<p>Put that back, or press <b>Go on all the same</b>: the result then differs from an undisturbed run's.</p>"
    )
    return f'<div class="notice warned" role="alert"><b>Something changed since its newest state was saved</b><ul>{changes}{more}</ul>{after}</div>'


def mend_label(view: RunView) -> str:
    """What a press on the button does that takes the settings which would have mended a failure; empty if there are
    none.
    """
    if view.state is not State.FAILED or not view.failed or not view.failed.changes:
        return ""
    changes = [
        f"{SPECS[key].label.lower()} {words.value(value)}" for key, value in view.failed.changes.items() if key in SPECS
    ]
    return f"Take {' and '.join(changes)}, and go on"


def pill(run: Run | None, view: RunView | None, waiting: int = 0) -> str:
    """The run at work and how many wait, for the page's head; a way down to it on a narrow screen."""
    if run is None or view is None or view.state.ended:
        return ""
    state = f"{run.name} · {words.STATES[view.state].lower()} · {100 * share(view):.0f} %" + (
        f" · {waiting} waiting" if waiting else ""
    )
    return f'<a class="pill {view.state}" href="#run"><span class="dot"></span>{words.text(state)}</a>'


def go_on_label(view: RunView) -> str:
    """What a press on "Go on" does with a run that is over: empty if there is nothing to go on with."""
    if view.state is State.FINISHED and not (view.finished and view.finished.stopped and view.checkpoints):
        return ""
    return f"Go on from step {view.checkpoints[-1].step:,}" if view.checkpoints else "Begin again"


def label(run: Run, view: RunView) -> str:
    """The run in the list of runs: its name, when it was made, and how it stands unless it ended well."""
    made = time.strftime("%d %b, %H:%M", time.localtime(run.settings_file.stat().st_mtime)).lstrip("0")
    return f"{run.name} · {made}" + ("" if view.state is State.FINISHED else f" · {words.STATES[view.state].lower()}")
