"""How an adapter is best used, as its header tells people and programs. No torch.

ModelSpec's ``usage_hint`` is for people; SwarmUI starts a LoRA at ``modelspec.lora_default_weight``. ComfyUI, Forge and
A1111 take no strength from a header.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import FiniteFloat, TypeAdapter

from lora_studio.adapters import metadata as meta
from lora_studio.language import english, tr

HINT, WEIGHT, STRENGTH = "modelspec.usage_hint", "modelspec.lora_default_weight", "lora_studio.strength"


class Strength(NamedTuple):
    """The strength to start with, and the range in which style and subjects hold, where that was measured."""

    recommended: FiniteFloat
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None

    @property
    def sentence(self) -> str:
        """For people."""
        if self.low is None or self.high is None or self.low == self.high:
            return tr("Start at a strength of {strength:g}.", strength=self.recommended)
        return tr(
            "Start at a strength of {strength:g}; style and subjects hold from {low:g} to {high:g}.",
            strength=self.recommended,
            low=self.low,
            high=self.high,
        )


def hint(trigger: str, strength: Strength | None = None) -> str:
    """What ``modelspec.usage_hint`` says, in English; empty without a trigger word and a strength."""
    start = [english(strength.sentence)] if strength else []
    return " ".join([f"Put {trigger} into the prompt."] * bool(trigger) + start)


def texts(strength: Strength, metadata: Mapping[str, str]) -> dict[str, str]:
    """The entries that tell ``strength`` in a header that says ``metadata`` so far."""
    return {
        HINT: hint(meta.trigger(metadata), strength),
        WEIGHT: f"{strength.recommended:g}",
        STRENGTH: json.dumps(strength._asdict()),
    }


def strength(metadata: Mapping[str, str]) -> Strength | None:
    """The strength that a header recommends; None if it recommends none, or no number."""
    try:
        return _VALIDATED.validate_python(json.loads(metadata[STRENGTH]), strict=True)
    except (KeyError, ValueError, RecursionError):
        weight = _number(metadata.get(WEIGHT, ""))
    return Strength(weight) if math.isfinite(weight) else None


_VALIDATED = TypeAdapter(Strength)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
