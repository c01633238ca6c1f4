"""The weights of a run's states: literal ones, and the least squares that they solve."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lora_studio.adapters import averaging
from lora_studio.adapters.averaging import WIDTH
from lora_studio.errors import SettingsError


@pytest.mark.parametrize(("width", "exponent"), [(0.05, 16.97), (0.10, 6.94), (0.15, 3.56), (math.sqrt(1 / 12), 0.0)])
def test_widths_as_the_paper_lists_them(width, exponent):
    assert averaging.exponent(width) == pytest.approx(exponent, abs=0.01)


def test_literal_weights(monkeypatch):
    """All steps alike: by the states at 1, 2 and 3 of 4, in the middle between each and the next, 3/8, 5/8 and 7/8 of
    the run are over.
    """
    monkeypatch.setattr(averaging, "exponent", lambda width: 0.0)
    assert averaging.weights([1, 2, 3, 4], 0.28) == pytest.approx([0.375, 0.25, 0.25, 0.125])


@pytest.mark.parametrize("width", [0.02, 0.1, 0.28])
@pytest.mark.parametrize("steps", [[20, 40, 60, 80], [10, 70, 75, 400], [1, 2]])
def test_the_weights_solve_the_least_squares(steps, width):
    """On a fine grid, with the last weight given by the sum."""
    found = averaging.weights(steps, width)
    assert sum(found) == pytest.approx(1) and min(found) >= 0
    t = (np.arange(200_000) + 0.5) / 200_000 * steps[-1]
    target = (t / steps[-1]) ** (averaging.exponent(width) + 1)
    profiles = np.stack([(t >= step).astype(float) for step in steps[:-1]], 1)
    best = np.linalg.lstsq(profiles, target, rcond=None)[0]
    assert found[:-1] == pytest.approx(list(best), abs=1e-4)


def test_the_average_has_about_the_mean_and_the_width_that_was_asked_for():
    """Of 50 states: a power function of that width has its mean at (γ + 1) / (γ + 2) of the run."""
    steps = list(range(20, 1001, 20))
    mean, width = averaging.spread(steps, averaging.weights(steps, 0.1))
    gamma = averaging.exponent(0.1)
    assert mean == pytest.approx(1000 * (gamma + 1) / (gamma + 2), abs=1) and width == pytest.approx(0.1, abs=0.002)


def test_a_narrow_average_of_few_states_is_the_last_one():
    found = averaging.weights([100, 200], 0.01)
    assert found[1] > 0.97


@pytest.mark.parametrize(("steps", "width", "said"), [
    ([100], 0.1, "two saved states"), ([], 0.1, "two"), ([1, 2], 0.3, "Width must be"), ([1, 2], 0, "Width must be"),
])  # fmt: skip
def test_what_gives_no_average_is_refused(steps, width, said):
    with pytest.raises(SettingsError, match=said):
        averaging.weights(steps, width)


def test_the_width_is_bounded_below_the_mean_of_all_steps():
    assert WIDTH.high < math.sqrt(1 / 12)
