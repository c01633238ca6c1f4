"""A small model trains slower on all threads than on one where handing its short operations round costs more than doing
them.
"""

import time

import pytest
import torch

from lora_studio.training import threads
from lora_studio.training.prepare import prepare
from lora_studio.training.session import Session


@pytest.fixture(autouse=True)
def as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("costs", "most", "expected"), [
    ({1: 1.0, 2: 2.0}, 2, 1),
    ({1: 4.0, 2: 2.0, 4: 1.0}, 4, 4),
    ({1: 4.0, 2: 2.0, 4: 1.9, 6: 0.1}, 6, 2),
    ({1: 4.0, 2: 2.0, 4: 1.0, 6: 0.7}, 6, 6),
    ({}, 1, 1),  # nothing to choose, nothing to time
])  # fmt: skip
def test_threads_are_added_while_they_pay(monkeypatch, costs, most, expected):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def work() -> None:
        clock[0] += costs[torch.get_num_threads()]

    assert threads.fastest(work, most) == torch.get_num_threads() == expected


def prepared(run, settings) -> Session:
    preparing = prepare(run, settings)
    while True:
        try:
            next(preparing)
        except StopIteration as end:
            return end.value


@pytest.mark.fault(44)
def test_a_checkpoint_keeps_the_number_that_its_run_began_with(new_run, settings):
    """A resumed run is another run, since sums are added up in another order on other threads."""
    session = prepared(new_run(settings), settings)
    torch.set_num_threads(1)
    state = session.state()
    torch.set_num_threads(2)
    session.restore(state)
    assert torch.get_num_threads() == 1
