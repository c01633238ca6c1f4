"""The learning rate as numbers."""

import pytest

from lora_studio.config.settings import Settings, check
from lora_studio.errors import SettingsError
from lora_studio.optim.schedules import SCHEDULES, Schedule, factor


def rates(total: int, **values) -> list[float]:
    settings = Settings(**values).optimizer
    return [factor(step, total, settings) for step in range(total)]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.8536, 0.5, 0.1464]),
        ("rex", [0.5, 1, 1, 6 / 7, 2 / 3, 2 / 5]),
    ],
)
def test_six_steps_of_which_two_warm_up(kind, expected):
    assert rates(6, schedule=kind, warmup=1 / 3) == pytest.approx(expected, abs=1e-4)


def test_restarts_begin_each_cycle_at_the_full_rate():
    """Eight steps after the warm-up in two cycles of four."""
    one = [1, 0.8536, 0.5, 0.1464]
    assert rates(10, schedule="restarts", cycles=2, warmup=0.2) == pytest.approx([0.5, 1, *one, *one], abs=1e-4)
    assert rates(4, schedule="restarts", cycles=1, warmup=0) == rates(4, schedule="cosine", warmup=0)


def test_the_decay_at_the_end_is_a_share_of_all_steps():
    """0.4 of ten steps, whatever the warm-up: 1 − √(0/4), √(1/4), √(2/4), √(3/4)."""
    falling = [1, 0.5, 1 - 0.5**0.5, 1 - 0.75**0.5]
    for warmup, rising in ((0, [1, 1]), (0.2, [0.5, 1])):
        found = rates(10, schedule="stable-decay", decay_share=0.4, warmup=warmup)
        assert found == pytest.approx([*rising, 1, 1, 1, 1, *falling])


def test_a_decay_longer_than_what_the_warm_up_leaves_follows_it_at_once():
    found = rates(4, schedule="stable-decay", decay_share=1, warmup=0.5)
    assert found == pytest.approx([0.5, 1, 1, 1 - 0.5**0.5])


def test_without_warm_up_the_first_step_is_full():
    assert all(rates(10, schedule=kind, warmup=0)[0] == 1.0 for kind in SCHEDULES)


def test_a_run_of_one_step_learns():
    """A warm-up that rounds to the whole run must not leave the rate at zero."""
    assert all(rates(1, schedule=kind, warmup=0.05) == [1.0] for kind in SCHEDULES)


def test_a_schedule_is_one_row(monkeypatch):
    row = Schedule("halved", "Halved", "is half of everything", lambda done, values: 0.5)
    monkeypatch.setitem(SCHEDULES, row.name, row)
    assert rates(2, schedule="halved", warmup=0) == [0.5, 0.5]
    with pytest.raises(SettingsError, match="stable-decay, halved; it is 'cosin'. Did you mean cosine"):
        check({"schedule": "cosin"})


def test_a_setting_of_another_schedule_is_told_to_have_no_effect():
    (told,) = Settings(schedule="cosine", cycles=5).ignored()
    assert told.key == "cycles"
    assert Settings(schedule="restarts", cycles=5).ignored() == []
