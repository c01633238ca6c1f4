"""A measured value, and how it is written. Imports no torch."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import FiniteFloat

from lora_studio.language import number as said
from lora_studio.language import tr

STYLE_SCALE = 100.0
"""From the base model to the training pictures, in per cent."""
SUBJECT_SCALE = 0.6
"""What is drawn of the cosines that ``subject`` measures."""
TOO_FEW = tr("too few prompts to tell")


class Value(NamedTuple):
    """A measured value, and the ends of its interval where it has one. Where one is read from a file, it is finite."""

    value: FiniteFloat
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None

    def vague(self, scale: float) -> bool:
        """Whether its interval is wider than all of ``scale``, and so tells nothing: few prompts were drawn."""
        return self.low is not None and self.high is not None and self.high - self.low > scale

    def margin(self, scale: float, form: str = "", how: str = ".0f") -> str:
        """Its interval in words, or in the ``form`` of two figures, or that prompts were too few; empty where it has
        none.

        >>> Value(61, -4, 80).margin(STYLE_SCALE), Value(61, -60, 80).margin(STYLE_SCALE), Value(61).margin(STYLE_SCALE)
        ('between −4 and 80', 'too few prompts to tell', '')
        """
        if self.low is None or self.high is None:
            return ""
        if self.vague(scale):
            return TOO_FEW
        low, high = number(self.low, how), number(self.high, how)
        return form.format(low, high) if form else tr("between {low} and {high}", low=low, high=high)


def number(value: float, how: str = ".0f") -> str:
    """A number in the format ``how``, with a minus sign instead of a hyphen.

    >>> number(-3.2), number(0.25, "+.1f")
    ('−3', '+0.2')
    """
    return str(said(value, how)).replace("-", "−")
