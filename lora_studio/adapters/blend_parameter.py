"""A number that a blend is made with, and its range. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lora_studio.errors import SettingsError
from lora_studio.language import declared, tr


@dataclass(frozen=True)
class BlendParameter:
    """A number that a blend is made with. One key means the same in every method that takes it."""

    key: str
    """Its name in a recipe and, with dashes, on the command line."""
    label: str
    help: str
    default: int | float
    """An int makes it a whole number."""
    low: int | float
    high: int | float
    above_low: bool = False
    """Whether ``low`` itself is out of range."""
    step: float = 1
    """How far the arrows of its field on the page go."""

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are in range."""
        return isinstance(self.default, int)

    @property
    def range(self) -> str:
        """The numbers that it takes, in words."""
        bounds = {"low": self.low, "high": self.high}
        if self.above_low:
            if self.whole:
                return tr("a whole number above {low:,} and at most {high:,}", **bounds)
            return tr("a number above {low:,} and at most {high:,}", **bounds)
        if self.whole:
            return tr("a whole number from {low:,} to {high:,}", **bounds)
        return tr("a number from {low:,} to {high:,}", **bounds)

    def check(self, value: object) -> int | float:
        """``value`` as an int or a float.

        Raises:
            SettingsError: it is not a number, or out of range.
        """
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        inside = number <= self.high and (number > self.low if self.above_low else number >= self.low)
        if not inside or (self.whole and number != int(number)):
            raise SettingsError(
                tr(
                    "{label} must be {range}; it is {given}.",
                    label=declared(self.label),
                    range=self.range,
                    given=repr(value),
                ),
                where=self.key,
                do=tr("Change the number."),
            )
        return int(number) if self.whole else float(number)
