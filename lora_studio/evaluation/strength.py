"""At which strengths of an adapter style and subjects both hold, as ``strength_sweep`` measured it. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import FiniteFloat, TypeAdapter

from lora_studio import files
from lora_studio.adapters.usage import Strength
from lora_studio.evaluation.value import Value
from lora_studio.language import tr
from lora_studio.runs import Run

ENOUGH = 0.8
"""The share of the best strength's change in style below which too little is left of it."""
STAGE = "strengths of step "
"""What is said while a state's strengths are measured, before the step."""


class StrengthRow(NamedTuple):
    """What was measured at one strength; style in per cent, as in a ``Judgement``."""

    strength: FiniteFloat
    style: Value
    subject: Value

    def fades(self, level: Value, likely: bool = False) -> bool:
        """Whether subjects have faded, beyond doubt, below the training pictures' ``level``; with ``likely``, by more
        than a standard error.
        """
        value, _, high = self.subject
        return high is not None and value + (high - value) / (2 if likely else 1) < level.value


class Resampled(NamedTuple):
    """One strength's style in resamplings that all strengths share: ``StyleScale.resampled`` and ``along``."""

    style: Sequence[float]
    along: Sequence[float]


@dataclass(frozen=True)
class StrengthRange:
    """Where style and subjects both hold.

    Attributes:
        rows: by strength.
        level: the training pictures' own subject value.
        low, high: the weakest and the strongest at which style and subjects hold (``find``).
        recommended: of those, the one with most style whose subjects have not likely faded; else the weakest.
    """

    step: int
    rows: tuple[StrengthRow, ...]
    level: Value
    low: FiniteFloat
    high: FiniteFloat
    recommended: FiniteFloat

    @property
    def usage(self) -> Strength:
        """What the adapter's header says of it."""
        return Strength(self.recommended, self.low, self.high)

    @property
    def sentence(self) -> str:
        """For people."""
        if all(row.fades(self.level) for row in self.rows):
            return tr(
                "Start at {recommended:g}: subjects fade at every strength from {lowest:g} on.",
                recommended=self.recommended,
                lowest=self.rows[0].strength,
            )
        held = tr("style and subjects hold from {low:g} to {high:g}", low=self.low, high=self.high)
        if self.low == self.high:
            held = tr("style and subjects hold at {strength:g}", strength=self.low)
        if self.high == self.rows[-1].strength:
            held = tr("{held}, the strongest that was tried", held=held)
        elif fading := next((row for row in self.rows if row.strength > self.high and row.fades(self.level)), None):
            held = tr("{held}, and subjects fade from {strength:g} on", held=held, strength=fading.strength)
        return tr("Start at {recommended:g}; {held}.", recommended=self.recommended, held=held)


def find(step: int, rows: Sequence[StrengthRow], resampled: Sequence[Resampled], level: Value) -> StrengthRange:
    """The range that ``rows``, by strength, show. Best is the one with most style whose subjects have not faded. Style
    holds where it cannot be told from the best one's, and goes at least ``ENOUGH`` as far.

    In doubt a strength holds, as a state does in ``advice``. ``resampled`` is of each row.
    """
    sound = [index for index, row in enumerate(rows) if not row.fades(level)] or [0]
    best = max(sound, key=lambda index: rows[index].style.value)
    # the best one always does, also where an adapter only moves away from the style
    held = [rows[index] for index in sound if index == best or _holds(resampled[index], resampled[best])]
    likely = [row for row in held if not row.fades(level, likely=True)] or held[:1]
    start = max(likely, key=lambda row: row.style.value)
    return StrengthRange(step, tuple(rows), level, held[0].strength, held[-1].strength, start.strength)


def _holds(one: Resampled, best: Resampled) -> bool:
    """Whether a strength's style is not worse than the best one's beyond doubt, by a paired bootstrap."""
    differences = np.subtract(one.style, best.style), np.subtract(one.along, ENOUGH * np.asarray(best.along))
    return all(np.quantile(difference, 0.975) >= 0 for difference in differences)


def known(run: Run, step: int, key: str = "") -> StrengthRange | None:
    """What was measured of the state of ``step``, with ``key`` only if under the same conditions; else None."""
    try:
        table = json.loads(_file(run, step).read_text("utf-8"))
        found = _VALIDATED.validate_python(table)
    except (OSError, ValueError, RecursionError):  # damaged: it is measured again
        return None
    return found if found.rows and found.step == step and key in ("", table.get("key")) else None


def write(run: Run, found: StrengthRange, key: str) -> None:
    """Keeps what was measured, under conditions that ``key`` stands for.

    Raises:
        OSError: the disk refuses.
    """
    files.write(_file(run, found.step), json.dumps({"key": key, **found.__dict__}))


def picture(run: Run, step: int, prompt: int, seed: int, at: float) -> Path:
    """Where what the state of ``step`` draws of a prompt and a seed, by their numbers, at a strength is kept."""
    return run.judged_adapter(step).parent / "strength" / f"{prompt}-{seed}-{at:g}.png"


def _file(run: Run, step: int) -> Path:
    return run.judged_adapter(step).with_name("strength.json")


_VALIDATED = TypeAdapter(StrengthRange)
