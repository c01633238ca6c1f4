"""The state of a run as HTML: what it does, its progress and speed, the time left, and what to do when it has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lora_studio.config.specs import SPECS
from lora_studio.errors import StudioError
from lora_studio.events import Preparing, Started, State
from lora_studio.jobs import control, queue, runner, turns
from lora_studio.jobs.control import Request
from lora_studio.jobs.queue import QueueEntry
from lora_studio.jobs.view import RunView
from lora_studio.language import both, english, ntr, tr
from lora_studio.runs import Run
from lora_studio.ui import tabs, words
from lora_studio.ui.blank import blank
from lora_studio.ui.pages.runs import state_words

_SHOWN_CHANGES = 12
_LOG_LINES = 40


def empty() -> str:
    """What stands in place of a run, as HTML."""
    sentences = tr(
        "Choose pictures and press <b>Start training</b>. Previews and loss appear here while it trains. Closing this "
        "tab does not stop a run."
    )
    return blank("train", tr("No run yet"), sentences)


def line(run: Run, view: RunView, unconfirmed: tuple[str, ...] = (), refused: StudioError | None = None) -> str:
    """The state of ``run``: a sentence, a progress bar, figures and messages. ``unconfirmed``: what has changed since
    it was saved, where the user has to confirm that. ``refused``: why the last press on a button failed.
    """
    done = 100 * share(view)
    bar = (
        ""
        if view.state.ended
        else f'<div class="bar" role="progressbar" aria-valuenow="{done:.0f}"><i style="width:{done:.1f}%"></i></div>'
    )
    state = f'<span class="dot"></span><b>{state_words.named(run, view)}</b>'
    sentence = f'<p class="sentence">{state} <span>{words.text(_sentence(run, view))}</span></p>'
    below = f"{words.facts(_facts(run, view))}{_trouble(run, view)}{_question(unconfirmed)}{_refusal(refused)}"
    return f'<div class="state {state_words.kind(run, view)}">{sentence}{bar}{below}</div>'


def share(view: RunView) -> float:
    """The progress, 0 to 1: of the stage while preparing, then of the steps."""
    if view.state is State.PREPARING and view.preparing and view.preparing.total:
        return view.preparing.done / view.preparing.total
    return min(view.progress, 1.0)


def _sentence(run: Run, view: RunView) -> str:
    match view.state:
        case State.QUEUED:
            return _place(run) if runner.alive(run) else "" if state_words.damaged(run) else tr("· press Start.")
        case State.PREPARING:
            stopping = control.asked(run, Request.STOP)
            return tr("· stops when this is done.") if stopping else _preparation(view)
        case State.RUNNING:
            return _running(run, view)
        case State.PAUSED:
            return tr("at {steps}, until you resume it.", steps=_steps(view))
        case State.STOPPING if isinstance(view.latest, Preparing):  # after the steps judging alone says so
            return f"· {view.latest.stage}."
        case State.STOPPING:
            return tr("· saving the adapter and drawing the last previews.")
        case State.FINISHED:
            return _ending(view)
        case State.FAILED:
            return tr("at {steps}.", steps=_steps(view)) if view.last else tr("before the first step.")
        case State.INTERRUPTED if view.left_queue:
            return tr("at {steps}.", steps=_steps(view)) if view.last else tr("before its turn.")
        case State.INTERRUPTED if view.stopped_early:
            return tr("before the first step.")
    if view.last:
        return tr("at {steps}: its process died.", steps=_steps(view))
    return tr("before the first step: its process died.")


def _place(run: Run) -> str:
    waits = queue.waits_for(run)
    if waits:
        return tr("for {waits}. It starts automatically.", waits=waits)
    return tr("· stops before it begins.") if control.asked(run, Request.STOP) else tr("· loading what training needs.")


def _running(run: Run, view: RunView) -> str:
    if control.asked(run, Request.STOP):
        return tr("{steps} · stopping after this step.", steps=_steps(view))
    if control.asked(run, Request.PAUSE):
        return tr("{steps} · pausing after this step.", steps=_steps(view))
    if turns.waiting(run):
        return tr("{steps} · waits while a picture is drawn.", steps=_steps(view))
    return _steps(view) + (f" · {view.latest.stage}." if isinstance(view.latest, Preparing) else "")


def _steps(view: RunView) -> str:
    done = view.last.step if view.last else view.started.first_step if view.started else 0
    if not view.started:
        return tr("step {step:,}", step=done)
    return tr("step {done:,} of {total:,}", done=done, total=view.started.total_steps)


def _preparation(view: RunView) -> str:
    if not view.preparing:
        if view.started:
            return tr("· drawing the base model's previews.")
        return tr("· reading pictures and loading the base model.")
    return f"· {stage(view.preparing)}"


def stage(preparing: Preparing) -> str:
    """What is being prepared, and how far that is."""
    done, total = preparing.done, preparing.total
    if total <= 1:
        return preparing.stage
    return tr("{stage}, {done:,} of {total:,}", stage=preparing.stage, done=done, total=total)


def _ending(view: RunView) -> str:
    end = view.finished
    if end is None:
        return ""
    steps = words.counted(end.steps, "step")
    duration = words.duration(end.seconds)
    if end.stopped:
        return tr("· stopped by you after {steps}, in {duration}.", steps=steps, duration=duration)
    return tr("· all {steps}, in {duration}.", steps=steps, duration=duration)


def _facts(run: Run, view: RunView) -> list[str]:
    facts = []
    if parent := run.parent():
        facts.append(_parent(parent))
    if view.last and view.state is State.RUNNING:
        facts.append(_pace(view.last.images_per_second, bool(view.started and view.started.pairs)))
        facts.append(tr("about {duration} left", duration=words.duration(view.last.eta)))
    if view.started:
        facts += _trained_on(view.started)
    if view.start:
        inputs, gradients = tr("started along its layers' inputs"), tr("started along its layers' gradients")
        facts.append(inputs if view.start.what == "inputs" else gradients)
    if view.base and view.base.name != "starter":  # which is always read right
        facts.append(tr("{name} predicts: {finding}", name=view.base.name, finding=view.base.finding))
    if view.checkpoints and view.state is not State.FINISHED:
        facts.append(tr("saved at step {step:,}", step=view.checkpoints[-1].step))
    return facts


def _parent(parent: Mapping[str, Any]) -> str:
    run, step = parent["run"], parent["step"]
    if parent["goes_on"]:
        return tr("branched from {run}, step {step:,}", run=run, step=step)
    return tr("started from {run}, step {step:,}", run=run, step=step)


def _pace(pace: float, pairs: bool) -> str:
    """How fast it trains. ``pace``: pictures, or ``pairs`` of prompts, in a second."""
    if 0 < pace < 0.95:
        seconds = 1 / pace
        if pairs:
            return tr("{seconds:.1f} seconds a pair", seconds=seconds)
        return tr("{seconds:.1f} seconds a picture", seconds=seconds)
    return tr("{pace:.1f} pairs a second", pace=pace) if pairs else tr("{pace:.1f} pictures a second", pace=pace)


def _trained_on(started: Started) -> list[str]:
    """The pictures or pairs, and what computes."""
    facts = [_pairs(started) if started.pairs else words.divided(started.images, started.validation_images)]
    if started.class_images:
        facts.append(words.counted(started.class_images, "class picture"))
    device = (started.device, started.precision, started.engine)
    return [*facts, ", ".join(str(one) for one in device if one)]


def _pairs(started: Started) -> str:
    if started.images:
        return ntr(started.pairs, "{count:,} pair of pictures", "{count:,} pairs of pictures")
    return ntr(started.pairs, "{count:,} pair of prompts", "{count:,} pairs of prompts")


def _trouble(run: Run, view: RunView) -> str:
    """What ended the run, with its log where the fault is the studio's own."""
    parts = _damage(run)
    if view.state is State.FAILED and view.failed:
        parts.append(words.notice("wrong", view.failed.what, view.failed.where, view.failed.do))
        if view.failed.ours:
            log = f"<summary>{tr('Details from worker.log')}</summary><pre>{words.text(_tail(run))}</pre>"
            parts.append(f'<details class="log">{log}</details>')
    if view.state is State.INTERRUPTED and not view.never_began:
        parts.append(_interruption(view))
    return "".join(parts)


def _damage(run: Run) -> list[str]:
    """Why the run cannot be started or resumed: its settings are damaged."""
    error = state_words.damaged(run)
    return [words.notice("wrong", error.what, error.where, error.do)] if error else []


def _interruption(view: RunView) -> str:
    step = view.checkpoints[-1].step if view.checkpoints else 0
    kept = (
        tr("It is saved up to step {step:,}: press Resume.", step=step)
        if step
        else tr("Nothing was saved before that, but its settings are kept: press Start again.")
    )
    return words.notice("wrong", tr("The training process was killed, or the machine lost power."), do=kept)


def _tail(run: Run) -> str:
    try:
        return "\n".join(run.log_file.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:])
    except OSError:
        return tr("The log cannot be read.")


def _refusal(refused: StudioError | None) -> str:
    return words.notice("wrong", refused.what, refused.where, refused.do) if refused else ""


def _question(unconfirmed: tuple[str, ...]) -> str:
    if not unconfirmed:
        return ""
    changes = "".join(f"<li>{words.text(one)}</li>" for one in unconfirmed[:_SHOWN_CHANGES])
    hidden = len(unconfirmed) - _SHOWN_CHANGES
    more = f"<li>{tr('And {count} more.', count=hidden)}</li>" if hidden > 0 else ""
    what = tr("Something has changed since the newest state was saved")
    do = tr(
        "Undo the change, or press <b>Resume anyway</b>. The result will then differ from that of an undisturbed run."
    )
    return f'<div class="notice warned" role="alert"><b>{what}</b><ul>{changes}{more}</ul><p>{do}</p></div>'


def apply_label(view: RunView) -> str:
    """The label of the button that applies the settings offered by a failure; empty if none are offered."""
    if view.state is not State.FAILED or not view.failed or not view.failed.changes:
        return ""
    changes = [
        f"{words.in_sentence(SPECS[key].label)} {words.value(value)}"
        for key, value in view.failed.changes.items()
        if key in SPECS
    ]
    return tr("Resume with {changes}", changes=both(changes))


_SEEN = {"captioning": "pictures", "sweep": "sweeps", "comparison": "train"}
"""The tabs where jobs are seen, by what they do; the judging of a run is seen with the run."""


def pill(first: QueueEntry, view: RunView | None, waiting: int = 0) -> str:
    """The run or job at work and how many others wait, for the page's header. It links to where that is seen; narrow
    screens show a run further down.

    Args:
        first: the first of the queue.
        view: of the run, if it is one.
    """
    if view and view.state.ended:
        return ""
    name, kind = (first.job.name, first.job.noun) if first.job else (first.title, "")
    does, progress = _does(first, view) if view else (kind, "")
    does = f"<span{' class=does' if progress else ''}> · {words.text(does)}</span>"
    progress = progress and f"<span> · {progress}</span>"
    others = f'<span class="waiting"> · {tr("{count} waiting", count=waiting)}</span>' if waiting else ""
    where = f"#{tab}" if (tab := _SEEN.get(english(kind))) else tabs.address("run", name)
    return (
        f'<a class="pill {view.state if view else State.RUNNING}" href="{words.text(where)}"><span class="dot"></span>'
        f'<span class="name">{words.text(name)}</span>{does}{progress}{others}</a>'
    )


def _does(first: QueueEntry, view: RunView) -> tuple[str, str]:
    """What a run does, and its progress where that tells something."""
    if first.run and state_words.starting(first.run, view):
        return tr("starting"), ""
    progress = "" if view.state in (State.QUEUED, State.STOPPING) else f"{100 * share(view):.0f} %"
    return state_words.within(view), progress


def start_label(line: Sequence[QueueEntry]) -> str:
    """The label of the button that starts a run, with what the run would wait for."""
    if not line:
        return tr("Start training")
    if len(line) > 1:
        return tr("Queue after {title} and {count} more", title=line[0].title, count=len(line) - 1)
    return tr("Queue after {title}", title=line[0].title)


def resume_label(view: RunView) -> str:
    """The label of the button that resumes an ended run; empty if there is nothing to resume."""
    if view.state is State.FINISHED and not (view.finished and view.finished.stopped and view.checkpoints):
        return ""
    if view.checkpoints:
        return tr("Resume from step {step:,}", step=view.checkpoints[-1].step)
    return tr("Start again") if view.state.ended and not view.never_began else tr("Start")
