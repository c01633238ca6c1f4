"""The range test as numbers."""

import math

import pytest

from lora_studio.config.settings import Settings
from lora_studio.optim import range_test
from lora_studio.optim.range_test import CYCLE, Curve
from lora_studio.optim.registry import OPTIMIZERS


def test_rates_rise_evenly_in_the_logarithm():
    """AdamW's make sense from 1e-6 to 2e-2: from ten times the first to four times the second."""
    rates = range_test.rates(OPTIMIZERS["adamw"])
    assert (len(rates), rates[0], rates[-1]) == (60, pytest.approx(1e-5), pytest.approx(8e-2))
    steps = [math.log(after / before) for before, after in zip(rates, rates[1:], strict=False)]
    assert steps == pytest.approx([math.log(8000) / 59] * 59)


def test_a_point_is_the_mean_of_a_cycle_at_its_middle_rate():
    """Batches 1 to 6 in turn: the second cycle is one lower, and no batch's own loss shows."""
    rates = [10.0**step for step in range(12)]
    curve = range_test.curve(rates, [1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5])
    assert curve.losses == pytest.approx([3.5 - step / 6 for step in range(7)])
    assert curve.rates == pytest.approx([10 ** (2.5 + step) for step in range(7)])
    assert range_test.curve(rates, [1.0] * (CYCLE - 1)) == Curve([], [])


@pytest.mark.parametrize(
    ("losses", "over"),
    [
        ([1.0] * 12, False),
        ([1.0] * 6 + [1.4] * 6, False),
        ([1.0] * 6 + [1.6] * 6, True),
        ([1.0] * 11 + [math.inf], True),
        ([1.0] * 11 + [math.nan], True),
        ([math.inf], True),
        ([100.0], False),
    ],
)
def test_when_a_test_is_over(losses, over):
    assert range_test.diverged(losses) is over


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.5, 0.4, 0.3, 0.2, 0.4], 2.5e-2),  # a quarter of 1e-1
        ([0.5, 0.4, 0.3, 0.4, 0.9], 2.5e-3),
        ([0.5, 0.495, 0.5, 0.6, 0.7], None),  # 1 % is none
        ([0.5, 0.6, 0.7, 0.8, 0.9], None),
        ([], None),
    ],
)
def test_the_suggestion_is_a_quarter_of_the_lowest_losss_rate(losses, expected):
    assert range_test.suggestion(Curve([1e-4, 1e-3, 1e-2, 1e-1, 1.0][: len(losses)], losses)) == expected


def test_it_is_for_optimizers_that_do_not_find_or_lower_their_rate_themselves():
    able = {name for name, row in OPTIMIZERS.items() if row.rate_can_be_found}
    assert set(OPTIMIZERS) - able == {"prodigy", "schedulefree", "prodigy-schedulefree", "adafactor-relative"}
    (ignored,) = Settings(optimizer="prodigy", find_rate=True).ignored()
    assert ignored.what == "Find the rate has no effect where Optimizer is Prodigy."
