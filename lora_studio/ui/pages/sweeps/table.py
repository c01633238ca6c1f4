"""The trials of a study as a table, and what is said of them. HTML."""

from __future__ import annotations

from collections.abc import Sequence

from lora_studio import language
from lora_studio.config.specs import SPECS
from lora_studio.evaluation.value import STYLE_SCALE, TOO_FEW, number
from lora_studio.language import tr
from lora_studio.sweeps import results
from lora_studio.sweeps.outcome import Trial, TrialState
from lora_studio.sweeps.results import Best
from lora_studio.sweeps.space import Sweep, ValueRange
from lora_studio.ui import words

_STATES = {
    TrialState.WAITING: tr("waits"),
    TrialState.RUNNING: tr("at work"),
    TrialState.PRUNED: tr("fell behind"),
    TrialState.FAILED: tr("failed"),
}


CHOOSE = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  if (button) trigger('click', {act: button.dataset.act, trial: button.dataset.trial});
});
"""
"""Reports which button was pressed; for ``gr.HTML(js_on_load=...)``."""


def finding(best: Best | None) -> str:
    """Which trial is best."""
    return f'<p class="sentence">{words.text(best.sentence)}</p>' if best else ""


def html(sweep: Sweep, trials: Sequence[Trial], best: Best | None, chosen: int | None) -> str:
    """A row for every trial, the best first; ``chosen`` is marked, those that cannot be told from the best too."""
    costs = [tr("Trained parameters"), tr("File")] if _vary_in_size(trials) else []
    measures = [tr("Style"), tr("Subjects"), tr("Copies")]
    heads = [tr("Trial"), *(SPECS[key].label for key in sweep.axes), *measures, *costs, tr("Time"), ""]
    head = "".join(f'<th scope="col">{words.text(one)}</th>' for one in heads)
    rows = "".join(_row(sweep, trial, best, trial.number == chosen, bool(costs)) for trial in results.ranked(trials))
    return (
        f'<div class="scroll"><table class="trials"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _vary_in_size(trials: Sequence[Trial]) -> bool:
    """Whether trials trained different numbers of parameters, as those of several methods."""
    return len({trial.outcome.parameters for trial in trials if trial.outcome}) > 1


def _row(sweep: Sweep, trial: Trial, best: Best | None, chosen: bool, costs: bool) -> str:
    values = [results.shown(key, trial.params[key]) if key in trial.params else "" for key in sweep.axes]
    sizes = _costs(trial) if costs else []
    cells = "".join(f"<td>{words.text(value)}</td>" for value in [*values, *_measures(trial), *sizes])
    time = words.duration(trial.seconds) if trial.seconds else ""
    kinds = ["chosen"] * chosen + ["alike"] * (best is not None and trial.number in (best.trial.number, *best.alike))
    mark = f' class="{" ".join(kinds)}"' if kinds else ""
    return f'<tr{mark}><th scope="row">{_number(trial)}</th>{cells}<td>{time}</td><td>{_state(trial)}</td></tr>'


def _number(trial: Trial) -> str:
    if trial.outcome is None:
        return str(trial.number)
    label = words.text(tr("Choose trial {number}", number=trial.number))
    about = f'data-act="choose" data-trial="{trial.number}" aria-label="{label}"'
    return f'<button type="button" {about}>{trial.number}</button>'


def _measures(trial: Trial) -> list[str]:
    outcome = trial.outcome
    if outcome is None:
        return ["", "", ""]
    style, subject = tr("{style} %", style=number(outcome.style.value)), number(outcome.subject.value, ".2f")
    if outcome.style.vague(STYLE_SCALE):
        style = tr("{style}, {margin}", style=style, margin=TOO_FEW)
    elif interval := outcome.style.margin(STYLE_SCALE, "[{}, {}]"):
        style = f"{style} {interval}"
    return [
        style,
        tr("{subject}, fading", subject=subject) if outcome.fades else subject,
        str(outcome.copies or tr("none")),
    ]


def _costs(trial: Trial) -> list[str]:
    """Trained parameters and size of the file; empty where they are not known."""
    outcome = trial.outcome
    if outcome is None or not outcome.parameters:
        return ["", ""]
    return [language.number(outcome.parameters), words.size(outcome.size)]


def _state(trial: Trial) -> str:
    told = _STATES.get(trial.state, "")
    return f'<span title="{words.text(trial.error)}">{told}: {words.text(trial.error)}</span>' if trial.error else told


def axes(sweep: Sweep) -> str:
    """What a sweep varies."""
    chips = "".join(
        f'<span class="chip">{words.text(f"{SPECS[key].label} {_values(sweep, key)}")}</span>' for key in sweep.axes
    )
    return f'<div class="changes">{chips}</div>'


def _values(sweep: Sweep, key: str) -> str:
    axis = sweep.axes[key]
    if isinstance(axis, ValueRange) and sweep.sampler != "grid":
        return tr("{low} to {high}", low=results.shown(key, axis.low), high=results.shown(key, axis.high))
    return ", ".join(results.shown(key, value) for value in sweep.values(key))


def actions(trial: Trial | None) -> str:
    """What can be done with the chosen trial."""
    if trial is None:
        return ""
    title = words.text(tr("Trial {number}", number=trial.number))
    return f"<h3>{title}</h3><p class='hint'>{words.text(results.described(trial))}</p>"
