"""A cap on how far an adapter changes any one layer."""

import pytest
import torch

from lora_studio.config.settings import Settings
from lora_studio.errors import SettingsError
from lora_studio.optim.norm_cap import FactorPair, NormCap


def pair(down: list, up: list, scale: float = 1.0) -> FactorPair:
    return FactorPair(torch.tensor(down), torch.tensor(up), scale)


def change(one: FactorPair) -> torch.Tensor:
    return one.scale * one.up.flatten(1) @ one.down.flatten(1)


def test_a_layer_above_the_cap_is_scaled_down_to_it_and_others_stay():
    """ΔW = 2 · [1, 1]ᵀ [3, 4] has norm √2 · 2 · 5 = 14.14: both factors by √(1 / 14.14) = 0.2659."""
    large, small = pair([[3.0, 4.0]], [[1.0], [1.0]], 2.0), pair([[0.3, 0.4]], [[1.0], [0.0]], 2.0)
    NormCap([large, small], 1.0).apply()
    assert large.down.tolist() == [pytest.approx([0.797744, 1.063659], abs=1e-5)]
    assert large.up.flatten().tolist() == pytest.approx([0.265915] * 2, abs=1e-5)
    assert change(large).norm().item() == pytest.approx(1.0)
    assert small.down.equal(torch.tensor([[0.3, 0.4]])) and change(small).norm().item() == pytest.approx(1.0), "at it"


def test_the_norm_is_that_of_the_whole_change_for_any_rank_and_for_convolutions():
    source = torch.Generator().manual_seed(0)
    shapes = [((4, 20), (30, 4)), ((4, 20), (30, 4)), ((4, 6, 3, 3), (9, 4, 1, 1)), ((1, 20), (5, 1))]
    pairs = [FactorPair(*(torch.randn(one, generator=source) for one in both), 0.5) for both in shapes]
    before = [change(one) for one in pairs]
    NormCap(pairs, 7.0).apply()
    for one, was in zip(pairs, before, strict=True):
        assert torch.allclose(change(one), was * min(1.0, 7.0 / was.norm().item()), atol=1e-5)


def test_a_layer_at_the_cap_or_without_change_stays_to_the_bit():
    still, fresh = pair([[3.0, 4.0]], [[0.7], [0.3]]), pair([[3.0, 4.0]], [[0.0], [0.0]])
    cap = NormCap([still, fresh], 1.0)
    cap.apply()
    once = still.down.clone(), still.up.clone(), fresh.down.clone(), fresh.up.clone()
    cap.apply()
    assert all(map(torch.equal, once, (*still[:2], *fresh[:2]))) and fresh.down.tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"method": "dora"}, "cannot scale what DoRA learns: set max_norm to 0, or method to lora"),
        ({"method": "pissa"}, "cannot scale what PiSSA learns"),
        ({"optimizer": "schedulefree"}, "does not reach the weights that Schedule-free AdamW keeps"),
    ],
)
def test_where_it_cannot_hold_it_is_refused(settings, refused):
    with pytest.raises(SettingsError, match=refused):
        Settings(max_norm=0).changed(**settings, max_norm=1.0)
    assert Settings().changed(max_norm=1.0).optimizer.max_norm == 1.0
