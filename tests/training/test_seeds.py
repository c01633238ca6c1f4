"""Random numbers as functions of what they are for."""

import torch

from lora_studio.training import seeds


def test_streams_of_different_purposes_differ_and_repeat():
    first = torch.randn(3, generator=seeds.generator(7, seeds.NOISE, 5))
    assert torch.equal(first, torch.randn(3, generator=seeds.generator(7, seeds.NOISE, 5)))
    assert not torch.equal(first, torch.randn(3, generator=seeds.generator(7, seeds.VALIDATION, 5)))
    assert not torch.equal(first, torch.randn(3, generator=seeds.generator(7, seeds.NOISE, 6)))
