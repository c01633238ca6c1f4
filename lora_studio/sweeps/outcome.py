"""What a trial found, as its study keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from lora_studio.evaluation.advice import advise
from lora_studio.evaluation.judgements import Judgement
from lora_studio.evaluation.value import Value
from lora_studio.language import Told
from lora_studio.language.message import to_data
from lora_studio.sweeps.space import Params


class TrialState(StrEnum):
    """Where a trial stands."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    PRUNED = "pruned"
    """It fell behind and was stopped."""
    FAILED = "failed"
    """It ended with an error that would come again."""


class TrialOutcome(BaseModel):
    """What was measured of the state that ``advise`` names, on average over a trial's runs.

    Attributes:
        copies: pictures that may be copies, where they speak against the state.
        parameters: how many were trained; 0 where that is not known.
        size: bytes of the adapter's file; 0 where that is not known.
        samples: percentages of ``style`` in resamplings that all trials of a study share.
    """

    model_config = ConfigDict(frozen=True)

    step: int
    style: Value
    subject: Value
    level: float
    drift: float
    copies: int
    samples: tuple[float, ...]
    parameters: int = 0
    size: int = 0

    @classmethod
    def of(cls, judged: Sequence[Judgement]) -> TrialOutcome:
        """Of one run's judged states, of which there is at least one."""
        advice = advise(judged)
        assert advice, "a run that ended was judged"
        best = next(one for one in judged if one.step == advice.step)
        samples = tuple(round(float(value), 3) for value in best.samples["style"])
        copies = len(best.copies) + len(best.memorized.pictures) if best.copied else 0
        return cls(
            step=best.step, style=best.style, subject=best.subject, level=best.level.value, drift=best.drift.value,
            copies=copies, samples=samples,
        )  # fmt: skip

    @classmethod
    def mean(cls, runs: Sequence[TrialOutcome]) -> TrialOutcome:
        """Over the runs of one trial, which drew the same prompts with the same seeds."""
        if len(runs) == 1:
            return runs[0]
        samples = np.mean([one.samples for one in runs], 0)
        style = float(np.mean([one.style.value for one in runs]))
        low, middle, high = np.quantile(samples, [0.025, 0.5, 0.975])
        return cls(
            step=runs[0].step,
            style=Value(style, style + float(low - middle), style + float(high - middle)),
            subject=_averaged([one.subject for one in runs]),
            level=float(np.mean([one.level for one in runs])),
            drift=float(np.mean([one.drift for one in runs])),
            copies=sum(one.copies for one in runs),
            samples=tuple(samples.round(3).tolist()),
            parameters=runs[0].parameters,
            size=runs[0].size,
        )

    @property
    def fades(self) -> bool:
        """Whether subjects have faded, beyond doubt."""
        return self.subject.high is not None and self.subject.high < self.level

    @property
    def sound(self) -> bool:
        """Whether subjects hold and nothing was copied."""
        return not self.fades and not self.copies

    @property
    def constraints(self) -> tuple[float, float]:
        """What must not be above 0, as Optuna takes it: how far subjects faded, and the number of copies."""
        high = self.subject.value if self.subject.high is None else self.subject.high
        return self.level - high, float(self.copies)


def _averaged(values: Sequence[Value]) -> Value:
    """The mean, with an interval as wide as those of its parts on average: they are of the same prompts."""
    value = float(np.mean([one.value for one in values]))
    low, high = [one.low for one in values if one.low is not None], [one.high for one in values if one.high is not None]
    return Value(value, float(np.mean(low)), float(np.mean(high))) if low and high else Value(value)


class Trial(NamedTuple):
    """One trial of a study.

    Attributes:
        number: also of its runs' folders; a trial that was interrupted keeps it when it is run again.
        seconds: how long it took.
        machine: name of the computer that has its runs.
        error: why it failed.
    """

    number: int
    state: TrialState
    params: Params
    outcome: TrialOutcome | None = None
    seconds: float = 0.0
    machine: str = ""
    error: Told = ""

    def told(self, samples: bool = False) -> dict[str, Any]:
        """As plain data that JSON can represent."""
        outcome = self.outcome and self.outcome.model_dump(exclude=None if samples else {"samples"})
        return {**self._asdict(), "outcome": outcome, "error": to_data(self.error)}
