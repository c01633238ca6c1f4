"""Which state to keep and why, what to do with it, and the button that judges states, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lora_studio.config.settings import Settings
from lora_studio.errors import RunError
from lora_studio.evaluation import cost
from lora_studio.evaluation.advice import UNSOUND, Advice
from lora_studio.evaluation.strength import StrengthRange
from lora_studio.events import State
from lora_studio.jobs.judging import JudgingView
from lora_studio.jobs.view import RunView
from lora_studio.language import both, in_row, in_sequence, ntr, number, tr
from lora_studio.runs import Run
from lora_studio.ui import downloads, tabs, words
from lora_studio.ui.pages.train.judged import Evaluation
from lora_studio.ui.pages.train.saved import button

_MEASURES = tr("Judging draws the same prompts with each state, and measures style, subjects and copies.")
_FEW = 2


def html(run: Run, view: RunView, found: Evaluation, settings: Settings | None, outputs: Path) -> str:
    """The card; empty while there is nothing to say. ``settings`` are the run's, if they can be read."""
    if settings and settings.run.has_pairs:
        return _of_pairs(view)
    work = _work(view, found, settings)
    if found.advice:
        return f'<div class="advice">{_advice(run, view, found, found.advice, outputs)}</div>{work}'
    if not view.state.ended and not found.works:
        every = settings.evaluation.evaluate_every if settings and view.started else 0
        return f"{_awaited(every)}{work}" if every else ""
    if hint := _unknown(view, found):
        title = tr("Which state to keep?")
        return f'<div class="advice"><div><h2>{title}</h2><p class="hint">{hint}</p></div></div>{work}'
    return ""


def _of_pairs(view: RunView) -> str:
    """What is said of a run without pictures, which cannot be judged, once it has an adapter."""
    if not view.finished:
        return ""
    hint = tr(
        "There are no pictures to judge it by. In Draw, try one prompt with it at several weights, such as −1, 0, 1."
    )
    return f'<div class="advice"><div><h2>{tr("How strong is it?")}</h2><p class="hint">{hint}</p></div></div>'


def _awaited(step: int) -> str:
    """What is said until the first state is judged, at ``step``. It takes the place of what is said then, buttons and
    all, so that nothing below it jumps.
    """
    hint = tr("States are judged while training, the first one at step {every:,}.", every=step)
    acts = button("keep", step, tr("Keep step {step:,}", step=step), "way primary")
    acts += button("show", step, tr("Draw with it"), "way") + button("branch", step, tr("Branch from it"), "way")
    return (
        f'<div class="advice awaited"><div><p class="eyebrow">{tr("Judged while it trains")}</p>'
        f'<h2>{tr("Which state to keep?")}</h2><p>{hint}</p><p class="hint">{tr("No state was judged yet")}</p></div>'
        f'<div class="ways" aria-hidden="true">{acts}</div></div>'
    )


def _unknown(view: RunView, found: Evaluation) -> str:
    """What is said where no state was judged; empty where nothing is to be said yet."""
    if not found.works and not found.saved and not view.finished:
        return ""
    if len(found.steps) >= _FEW or found.works:
        return _MEASURES
    only = (
        tr("Only the last state was kept, so there is little to choose from.")
        if found.saved
        else tr("Only the adapter was kept, so there is little to choose from.")
    )
    do = tr(
        "To compare more states next time, set <b>Preview every</b>, <b>Save every</b> or <b>Judge every</b>, under "
        "All settings."
    )
    return f"{only} {do}"


def _advice(run: Run, view: RunView, found: Evaluation, advice: Advice, outputs: Path) -> str:
    ended = view.state.ended
    eyebrow = (
        tr("Judged while it trains") if not ended else tr("Recommended so far") if found.unjudged else tr("Recommended")
    )
    start = tr("Start at {strength:g}.", strength=found.strength.recommended) if found.strength else ""
    reasons = in_row(advice.reasons)
    why = tr("{reasons}.", reasons=reasons[:1].upper() + reasons[1:])
    warning = "" if advice.sound else f"<b>{UNSOUND}</b> "
    return (
        f'<div><p class="eyebrow">{eyebrow}</p>'
        f"<h2>{_heading(advice, ended, found.strength)}</h2>"
        f"<p>{warning}{words.text(in_sequence([why, start]))}</p>{_neighbours(found, advice)}</div>"
        f'<div class="ways">{_ways(run, found, advice.step, outputs)}</div>'
    )


def _heading(advice: Advice, ended: bool, strength: StrengthRange | None) -> str:
    """The step, and at which strengths it holds, as HTML."""
    step = advice.step
    if not advice.sound:
        what = tr("Most style: step {step:,}", step=step)
    else:
        what = tr("Keep step {step:,}", step=step) if ended else tr("Best so far: step {step:,}", step=step)
    if strength is None:
        return what
    at = f"<span>{tr('strength {range}', range=_range(strength))}</span>"
    return tr("{what}, at {strength}", what=what, strength=at)


def _range(strength: StrengthRange) -> str:
    """The strengths at which style and subjects hold."""
    low, high = f"{strength.low:g}", f"{strength.high:g}"
    return low if low == high else f"{low}–{high}"


def _neighbours(found: Evaluation, advice: Advice) -> str:
    parts = []
    if advice.freer is not None:
        parts.append(tr("freer: {step}", step=_to_show(advice.freer)))
    if advice.tighter is not None:
        parts.append(tr("tighter: {step}", step=_to_show(advice.tighter)))
    if len(advice.alike) > 1:
        steps = alike(advice.alike, [one.step for one in found.states])
        parts.append(tr("{steps} cannot be told apart in style", steps=steps))
    line = " · ".join(parts) or tr("no other state was judged")  # the line stays, so that nothing jumps once one is
    return f'<p class="hint">{line[:1].upper()}{line[1:]}</p>'


def _to_show(step: int) -> str:
    """The button that shows the state of ``step``."""
    return button("show", step, tr("step {step:,}", step=step), "quiet-link")


def alike(steps: Sequence[int], judged: Sequence[int]) -> str:
    """Some of the ``judged`` steps in words: as a range where they follow one another.

    >>> alike([320, 400, 480], [160, 320, 400, 480]), alike([40, 240], [40, 160, 240])
    ('steps 320 to 480', 'steps 40 and 240')
    """
    first = list(judged).index(steps[0])
    if len(steps) > 2 and list(steps) == list(judged[first : first + len(steps)]):
        return tr("steps {first:,} to {last:,}", first=steps[0], last=steps[-1])
    return tr("steps {steps}", steps=both(number(step) for step in steps))


def _ways(run: Run, found: Evaluation, step: int, outputs: Path) -> str:
    """What can be done with the state of ``step``."""
    try:
        adapter = found.adapter(run, step)
    except RunError:  # it was deleted, and its measures are still there
        return ""
    key = adapter.relative_to(outputs).as_posix()
    if step in found.kept:
        ways = [
            downloads.link(adapter, outputs, tr("Download step {step:,}", step=step)),
            tabs.link("library", key, tr("Show in the library")),
        ]
    else:
        ways = [button("keep", step, tr("Keep step {step:,}", step=step), "way primary")]
    ways += [tabs.link("draw", key, tr("Draw with it")), button("branch", step, tr("Branch from it"), "way")]
    return "".join(ways)


def _work(view: RunView, found: Evaluation, settings: Settings | None) -> str:
    """The judging that is at work, or the button that starts it."""
    if found.works and found.job:
        return _progress(found.job)
    failed = found.job.error if found.job else None
    wrong = words.notice("wrong", failed.what, failed.where, failed.do) if failed else ""
    if not view.state.ended or not (found.unjudged or found.advice and not found.strength):
        return f'<div class="judging">{wrong}</div>' if wrong else ""
    seconds = estimate(view, found, settings)
    what, press = _offer(found, words.duration(seconds) if seconds else "")
    return (
        f'<div class="judging">{wrong}<p class="line"><span>{what}</span>{button("judge", 0, press, "way")}</p></div>'
    )


def _offer(found: Evaluation, duration: str) -> tuple[str, str]:
    """What is not known yet with how long it takes to find out, and the label of the button that starts that."""
    if found.unjudged:
        about = tr("Judging takes about {duration}.", duration=duration) if duration else ""
        return f"{_unjudged(found)} {about}".rstrip(), tr("Judge")
    about = tr("Measuring takes about {duration}.", duration=duration) if duration else ""
    what = tr("At which strengths step {step:,} holds is not known.", step=found.proposed or 0)
    return f"{what} {about}".rstrip(), tr("Measure strengths")


def _unjudged(found: Evaluation) -> str:
    count = len(found.unjudged)
    if found.states:
        return ntr(count, "{count:,} other saved state is not judged.", "{count:,} other saved states are not judged.")
    return ntr(count, "{count:,} saved state is not judged.", "{count:,} saved states are not judged.")


def _progress(job: JudgingView) -> str:
    if job.state is State.QUEUED:
        waits = tr("<b>Waiting</b> for {waits}.", waits=words.text(job.waits_for)) if job.waits_for else ""
        what = waits or tr("<b>Judging</b> · starting.")
    else:
        facts = [words.text(job.stage)] * bool(job.stage)
        if job.total:
            facts.append(tr("{done:,} of {states} judged", done=job.done, states=words.counted(job.total, "state")))
        if job.seconds_left:
            facts.append(tr("about {duration} left", duration=words.duration(job.seconds_left)))
        what = " · ".join([f"<b>{tr('Stopping') if job.stopping else tr('Judging')}</b>", *facts])
    share = 100 * job.progress
    return (
        f'<div class="judging running"><p class="line"><span class="sentence"><span class="dot"></span>{what}</span>'
        f"{_stop(job)}</p>"
        f'<div class="bar" role="progressbar" aria-label="{tr("Judging")}" aria-valuenow="{share:.0f}">'
        f'<i style="width:{share:.1f}%"></i></div></div>'
    )


def _stop(job: JudgingView) -> str:
    return "" if job.stopping else button("stop-judging", 0, tr("Stop"), "way")


def estimate(view: RunView, found: Evaluation, settings: Settings | None) -> float | None:
    """Seconds that it takes to judge the states that were not judged and to measure strengths, by what other states
    took, else by the run's own speed; None where neither is known.

    Training passes a picture through the model forwards and backwards, which costs about three forward passes; drawing
    one costs a pass for each of its steps, two with guidance.
    """
    if settings is None:
        return None
    captions = view.started.images if view.started else cost.CAPTIONS
    of_a_state = cost.of_a_state(settings, captions)
    pictures = len(found.unjudged) * of_a_state + cost.of_strengths(settings)
    judged = [*view.judged, *(found.job.judged if found.job else [])]
    if paces := [one.seconds for one in judged if one.seconds]:
        return pictures * sum(paces) / len(paces) / of_a_state
    if not view.last or not view.last.images_per_second:
        return None
    pictures += 0 if found.states else cost.of_the_base(settings, captions)
    passes = settings.previews.preview_steps * (2 if settings.previews.guidance > 1 else 1)
    return pictures * passes / 3 / view.last.images_per_second
