"""The learning rate as numbers."""

import pytest

from lora_studio.optim.schedules import factor


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.8536, 0.5, 0.1464]),
    ],
)
def test_six_steps_of_which_two_warm_up(kind, expected):
    assert [factor(step, 6, kind, warmup=1 / 3) for step in range(6)] == pytest.approx(expected, abs=1e-4)


def test_without_warm_up_the_first_step_is_full():
    assert factor(0, 10, "cosine", 0.0) == 1.0


def test_a_run_of_one_step_learns():
    """A warm-up that rounds to the whole run must not leave the rate at zero."""
    assert factor(0, 1, "cosine", 0.05) == 1.0
