"""The average of a run's saved states, with a width that is chosen after training: post-hoc EMA (Karras et al. 2024,
section 3). Imports no torch.

Letters: ``t`` steps, ``T`` the last state's, ``γ`` the exponent of the profile p(t) ∝ t^γ on [0, T].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lora_studio.adapters.blend_parameter import BlendParameter
from lora_studio.errors import SettingsError
from lora_studio.language import tr

WIDTH = BlendParameter(
    "width",
    "Width",
    "Standard deviation of the steps that are averaged, as a share of the run up to its last state.",
    default=0.1,
    low=0.01,
    high=0.28,
    step=0.01,
)
"""σ_rel. At 0.289 all steps would count the same."""


def exponent(width: float) -> float:
    """γ ≥ 0 of the profile with the relative standard deviation ``width``: σ² = (γ + 1) / ((γ + 2)²·(γ + 3))."""
    low, high = 0.0, 1 / width
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        wider = (middle + 1) / ((middle + 2) ** 2 * (middle + 3)) > width**2
        low, high = (middle, high) if wider else (low, middle)
    return (low + high) / 2


def weights(steps: Sequence[int], width: float) -> list[float]:
    """The weights of the states of these ``steps``, ascending, whose profile is nearest to t^γ: each ≥ 0, their sum 1.

    A state stands for its step alone, a profile that has no square, so that the least squares are taken between the
    cumulative profiles: between two states the sum of the weights so far is the mean of (t / T)^(γ + 1).

    Raises:
        SettingsError: there are fewer than two states, or the width is out of range.
    """
    if len(steps) < 2:
        raise SettingsError(
            tr("An average needs two saved states."),
            do=tr("Set checkpoint_every and keep_checkpoints before training, or keep and judge states."),
        )
    power, last = exponent(float(WIDTH.check(width))) + 1, steps[-1]
    whole = [last * (step / last) ** (power + 1) / (power + 1) for step in steps]
    sums = [
        (whole[index + 1] - whole[index]) / (steps[index + 1] - steps[index]) for index in range(len(steps) - 1)
    ] + [1.0]
    return [after - before for before, after in zip([0.0, *sums], sums, strict=False)]


def spread(steps: Sequence[int], weights: Sequence[float]) -> tuple[float, float]:
    """The mean step of an average, and its relative standard deviation: what the states give of the width."""
    mean = sum(step * weight for step, weight in zip(steps, weights, strict=True))
    variance = sum(weight * (step - mean) ** 2 for step, weight in zip(steps, weights, strict=True))
    return mean, math.sqrt(variance) / steps[-1]
