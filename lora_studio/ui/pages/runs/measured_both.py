"""What two runs measured, in figures that can be compared: means over the steps that both measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from lora_studio.events import Measured
from lora_studio.jobs.view import RunView
from lora_studio.language import tr
from lora_studio.ui import words
from lora_studio.ui.pages.train.judged import Evaluation

_RECENT = 100
"""Steps that the mean loss is taken over: that of one step says little."""


class ComparedValue(NamedTuple):
    """One figure of both runs, for people."""

    name: str
    one: str
    other: str


class RunFacts(NamedTuple):
    """What is compared of a run."""

    view: RunView
    found: Evaluation


def figures(one: RunFacts, other: RunFacts) -> list[ComparedValue]:
    """The rows of the table of measures; a measure that one of them lacks is left out."""
    rows = [
        _mean(tr("Loss"), _losses(one.view), _losses(other.view), most=_RECENT),
        *(_mean(title, *both) for title, both in _measures(one.view, other.view)),
        _best(tr("Lowest validation"), *(_values(side.view.validations) for side in (one, other)), best=min),
        _mean(tr("Style learned"), _styles(one.found), _styles(other.found), " %"),
        _best(tr("Most style learned"), _styles(one.found), _styles(other.found), best=max, unit=" %"),
        _mean(tr("Subjects"), _subjects(one.found), _subjects(other.found)),
        _time(one.view, other.view),
    ]
    return [row for row in rows if row]


def _losses(view: RunView) -> dict[int, float]:
    return {step.step: step.loss for step in view.steps}


def _measures(one: RunView, other: RunView) -> list[tuple[str, tuple[dict[int, float], dict[int, float]]]]:
    """The measures that both runs have, by their titles."""
    both = [name for name in one.measures if other.measures.get(name)]
    return [
        (one.measures[name][-1].title, (_values(one.measures[name]), _values(other.measures[name]))) for name in both
    ]


def _values(measured: Sequence[Measured]) -> dict[int, float]:
    return {value.step: value.value for value in measured}


def _styles(found: Evaluation) -> dict[int, float]:
    return {state.step: state.style.value for state in found.states}


def _subjects(found: Evaluation) -> dict[int, float]:
    return {state.step: state.subject.value for state in found.states}


def _mean(
    title: str, one: Mapping[int, float], other: Mapping[int, float], unit: str = "", most: int = 0
) -> ComparedValue | None:
    """The means over the steps at which both are finite, the last ``most`` of them; None where there is none."""
    steps = sorted(
        step for step in one.keys() & other.keys() if math.isfinite(one[step]) and math.isfinite(other[step])
    )
    steps = steps[-most:]
    if not steps:
        return None
    count, last = len(steps), steps[-1]
    mean_of = tr("{title}, mean of {count:,} steps to {last:,}", title=title, count=count, last=last)
    name = tr("{title}, at step {step:,}", title=title, step=last) if count == 1 else mean_of
    means = (f"{words.figure(fmean(side[step] for step in steps))}{unit}" for side in (one, other))
    return ComparedValue(name, *means)


def _best(
    title: str, one: Mapping[int, float], other: Mapping[int, float], best: Callable[..., int], unit: str = ""
) -> ComparedValue | None:
    """The best value of each, and at which step it was; None where one has none."""
    if not one or not other:
        return None
    steps = [best(side, key=lambda step, side=side: side[step]) for side in (one, other)]
    told = (
        tr("{value} at step {step:,}", value=f"{words.figure(side[step])}{unit}", step=step)
        for side, step in zip((one, other), steps, strict=True)
    )
    return ComparedValue(title, *told)


def _time(one: RunView, other: RunView) -> ComparedValue | None:
    """What a step took."""
    if not (one.last and other.last and one.last.seconds and other.last.seconds):
        return None
    taken = (tr("{seconds:.2g} seconds", seconds=_per_step(view)) for view in (one, other))
    return ComparedValue(tr("Time of a step"), *taken)


def _per_step(view: RunView) -> float:
    assert view.last
    return view.last.seconds / max(1, view.last.step - (view.started.first_step if view.started else 0))
