"""The learning rate range test (Smith 2017, *Cyclical Learning Rates for Training Neural Networks*, §3.3): the rate
rises from step to step, and the loss tells where learning begins and where it breaks down. Numbers alone; no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from lora_studio.optim.registry import OptimizerSpec

STEPS = 60
"""Steps of a test, each at a higher rate."""
CYCLE = 6
"""Steps whose batches come up again and again, in turn. The mean over so many steps is always over the same pictures
and noise, so that it changes with the adapter alone: the loss of single batches varies far more than what a step
teaches.
"""
BEYOND = 4.0
"""How far the test goes beyond the highest rate that makes sense for the optimizer."""
DIVERGED = 1.5
"""A mean loss this many times that of the start ends the test."""
SAFE = 0.25
"""What the rate of the lowest loss is multiplied by."""
NOTICEABLE = 0.02
"""The share of the loss that has to go for a test to have an answer."""


class Curve(NamedTuple):
    """What a test measured."""

    rates: list[float]
    """In the middle of each ``CYCLE`` steps; rising."""
    losses: list[float]
    """Mean loss of those steps."""


def rates(spec: OptimizerSpec) -> list[float]:
    """The rate of each step: evenly spaced in the logarithm, from ten times what teaches next to nothing."""
    low, high = 10 * spec.sensible_rates[0], BEYOND * spec.sensible_rates[1]
    return [low * (high / low) ** (step / (STEPS - 1)) for step in range(STEPS)]


def curve(tried: Sequence[float], losses: Sequence[float]) -> Curve:
    """The mean of each ``CYCLE`` consecutive losses, at the geometric middle of their rates. As long as the shorter of
    the two allows.
    """
    count = max(0, min(len(tried), len(losses)) - CYCLE + 1)
    middles = [math.sqrt(tried[first] * tried[first + CYCLE - 1]) for first in range(count)]
    return Curve(middles, [sum(losses[first : first + CYCLE]) / CYCLE for first in range(count)])


def diverged(losses: Sequence[float]) -> bool:
    """Whether a test need not go on after these losses: the latest mean is no number, or far above the first."""
    if len(losses) <= CYCLE:
        return not all(map(math.isfinite, losses))
    latest = sum(losses[-CYCLE:])
    return not latest < DIVERGED * sum(losses[:CYCLE])


def suggestion(found: Curve) -> float | None:
    """A quarter of the rate at which the mean loss is lowest, in two digits; None where the loss hardly falls.

    Smith names no rule; a tenth is common for networks that train long from scratch (fastai's ``minimum``), and the
    steepest fall comes long before. An adapter trains briefly: on the starter's two sample styles a quarter is 2.2e-3
    and 1e-3, where the preset quick-look, chosen by measuring, has 2e-3.
    """
    if not found.losses:
        return None
    lowest = min(range(len(found.losses)), key=found.losses.__getitem__)
    if found.losses[0] - found.losses[lowest] < NOTICEABLE * found.losses[0]:
        return None
    return float(f"{SAFE * found.rates[lowest]:.2g}")
