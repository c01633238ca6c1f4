"""The running average as numbers."""

import pytest
import torch
from torch import nn

from lora_studio.optim.ema import Average


def test_the_average_of_two_updates():
    """Decay 0.9 is held down to 2/11 and 3/12 at first: 0→(1: 9/11), then towards 2 by 3/4."""
    weight = nn.Parameter(torch.zeros(1))
    average = Average({"w": weight}, 0.9)
    for value in (1.0, 2.0):
        with torch.no_grad():
            weight.fill_(value)
        average.update()
    with average.applied():
        assert weight.item() == pytest.approx(9 / 11 + (2 - 9 / 11) * 0.75)
    assert weight.item() == 2.0


def test_an_error_inside_still_gives_the_own_values_back():
    weight = nn.Parameter(torch.ones(1))
    average = Average({"w": weight}, 0.5)
    with torch.no_grad():
        weight.fill_(5.0)
    with pytest.raises(RuntimeError), average.applied():
        raise RuntimeError
    assert weight.item() == 5.0


def test_off_costs_nothing():
    average = Average({"w": nn.Parameter(torch.ones(1))}, 0.0)
    average.update()
    assert average.shadow == {}
