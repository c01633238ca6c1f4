"""What a study found: which trial is best, and which cannot be told from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lora_studio.config.specs import SPECS
from lora_studio.evaluation.value import STYLE_SCALE, number
from lora_studio.language import both, few, in_sequence, ntr, tr
from lora_studio.sweeps.outcome import Trial, TrialOutcome, TrialState


class Best(NamedTuple):
    """The best trial.

    Attributes:
        alike: numbers of the others whose style cannot be told from its own.
        sound: whether its subjects hold and nothing was copied; False where that is so in no trial.
    """

    trial: Trial
    outcome: TrialOutcome
    alike: tuple[int, ...]
    sound: bool

    @property
    def sentence(self) -> str:
        """For people."""
        style, margin = self.outcome.style.value, self.outcome.style.margin(STYLE_SCALE)
        trial, value, settings = self.trial.number, number(style), described(self.trial)
        told = [
            tr(
                "Trial {trial} learned the most style: {value} % ({margin}), with {settings}.",
                trial=trial,
                value=value,
                margin=margin,
                settings=settings,
            )
            if margin
            else tr(
                "Trial {trial} learned the most style: {value} %, with {settings}.",
                trial=trial,
                value=value,
                settings=settings,
            )
        ]
        if not self.sound:
            told.append(tr("In no trial do all subjects hold without copies: look at its pictures."))
        if self.alike:
            told.append(tr("It cannot be told from {trials}.", trials=listed(self.alike)))
        return in_sequence(told)


def best(trials: Sequence[Trial]) -> Best | None:
    """The finished trial with most of the style among those whose subjects hold and that copied nothing; where there is
    none, among all. None if none has finished.
    """
    ended = [(trial, trial.outcome) for trial in trials if trial.state is TrialState.FINISHED and trial.outcome]
    if not ended:
        return None
    sound = [(trial, outcome) for trial, outcome in ended if outcome.sound]
    trial, outcome = max(sound or ended, key=lambda one: one[1].style.value)
    alike = tuple(other.number for other, found in sound or ended if other is not trial and same(found, outcome))
    return Best(trial, outcome, alike, bool(sound))


def same(one: TrialOutcome, other: TrialOutcome) -> bool:
    """Whether two styles cannot be told apart: the 95 % interval of their difference, by a paired bootstrap over
    prompts and seeds, holds 0.
    """
    if len(one.samples) != len(other.samples):
        return True
    low, high = np.quantile(np.subtract(one.samples, other.samples), [0.025, 0.975])
    return bool(low <= 0 <= high)


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Sound trials first, each kind by its style; then those that were pruned, failed, run and wait."""
    order = list(TrialState)[::-1]

    def key(trial: Trial) -> tuple[object, ...]:
        outcome = trial.outcome
        if trial.state is TrialState.FINISHED and outcome:
            return (0, not outcome.sound, -outcome.style.value, trial.number)
        return (1, -order.index(trial.state), 0, trial.number)

    return sorted(trials, key=key)


def described(trial: Trial) -> str:
    """The trial's values for people: ``Rank 8, Alpha 16``."""
    told = [
        tr("{label} {value}", label=SPECS[key].label, value=shown(key, value)) for key, value in trial.params.items()
    ]
    return few(told, len(told))


def values(trial: Trial) -> str:
    """The trial's values alone: ``LoRA``, or ``8, 16``."""
    return ", ".join(shown(key, value) for key, value in trial.params.items())


def shown(key: str, value: object) -> str:
    """A setting's value for people."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value, ".3g" if isinstance(value, float) else "")
    return SPECS[key].title(value) if SPECS[key].kind == "choice" else str(value)


def listed(numbers: Sequence[int]) -> str:
    """``trials 3, 5 and 8``."""
    return ntr(len(numbers), "trial {numbers}", "trials {numbers}", numbers=both(map(str, numbers)))
