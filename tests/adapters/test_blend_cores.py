"""Singular value calibration and Compress-then-Merge: small matrices with the result worked out by hand."""

from __future__ import annotations

import pytest
import torch

from lora_studio.adapters import Adapter, Factors, blend, combine, combine_cores, read, recipe, write
from tests.adapters.adapter_samples import Q, assert_same, factors

CONV = "unet.down_blocks.0.resnets.0.conv1"


def one(matrix, path: str = Q) -> Adapter:
    M = torch.tensor(matrix)
    return Adapter({path: Factors(torch.eye(M.shape[1]), M, float(M.shape[1]))})


def made(adapters, method, weights=None, **more) -> blend.Blended:
    weights = weights or [1.0] * len(adapters)
    ingredients = [{"name": f"A{index}", "weight": weight} for index, weight in enumerate(weights)]
    return blend.blend(recipe.blend(method=method, ingredients=ingredients, **more), adapters)


def delta(blended: blend.Blended, path: str = Q) -> torch.Tensor:
    return blended.adapter.factors[path].delta()


def test_what_two_count_in_common_counts_once():
    """Direction 1 is in both (counted twice), direction 2 in the first alone, direction 3 in the second alone."""
    result = delta(made([one([[3.0, 0, 0], [0, 2, 0], [0, 0, 0]]), one([[3.0, 0, 0], [0, 0, 0], [0, 0, 1]])], "svc"))
    assert torch.allclose(result, torch.diag(torch.tensor([3.0, 2.0, 1.0])), atol=1e-6)


def test_literal_calibration():
    """Responses 1 and 3 in one direction, 4 in sum: counted 4 and 4/3 times, 8/3 in the mean; 4 / (8/3) = 1.5."""
    assert torch.allclose(delta(made([one([[1.0]]), one([[3.0]])], "svc")), torch.tensor([[1.5]]), atol=1e-6)


def test_what_cancels_and_what_is_strange_to_others_stays():
    """Opposed changes are a conflict, which is not what is calibrated; nothing is made stronger."""
    assert torch.allclose(delta(made([one([[3.0]]), one([[-1.0]])], "svc")), torch.tensor([[2.0]]), atol=1e-6)
    apart = [one([[2.0, 0], [0, 0]]), one([[0.0, 0], [0, 1]])]
    assert torch.allclose(delta(made(apart, "svc", [1.0, -1.0])), torch.tensor([[2.0, 0], [0, -1]]), atol=1e-6)


def test_copies_give_the_adapter_itself():
    """At any rank and alpha, and for convolutions: three copies are counted three times."""
    adapter = Adapter({Q: factors("q", 24, 16, 5, alpha=2.0), CONV: factors("c", 8, 6, 3, kernel=3)})
    result = made([adapter] * 3, "svc")
    for path, own in adapter.factors.items():
        assert torch.allclose(delta(result, path), own.delta(), atol=1e-5)
        assert result.adapter.factors[path].shape == own.shape


def test_cores_hold_the_whole_change():
    parts = [(factors("a", 20, 15, 3, alpha=1.5), 0.7), (factors("b", 20, 15, 4), -1.2)]
    shared = combine_cores.cores(parts)
    eye = torch.eye(7, dtype=torch.float64)
    Qm, Pm = shared.left.columns(eye), shared.right.columns(eye)
    assert torch.allclose(Qm.T @ Qm, eye, atol=1e-9) and torch.allclose(Pm.T @ Pm, eye, atol=1e-9)
    for (factor, weight), M in zip(parts, shared.each, strict=True):
        assert torch.allclose((Qm @ M @ Pm.T).float(), weight * factor.delta(), atol=1e-5)


def test_compressed_to_the_directions_that_both_share():
    """Three directions for two: with sizes 3 and 2 against 1, and 2 of rank, the third one is left out."""
    pair = [one([[3.0, 0, 0], [0, 0, 0], [0, 0, 1]]), one([[0.0, 0, 0], [0, 2, 0], [0, 0, 0]])]
    result = made(pair, "ctm", rank=2, balance=0.0)
    assert torch.allclose(delta(result), torch.diag(torch.tensor([3.0, 2.0, 0.0])), atol=1e-6)
    assert result.adapter.rank == 2
    assert result.residual == pytest.approx(1 / 14**0.5, rel=1e-6) and result.residuals[Q] == result.residual


def test_balance_gives_the_smaller_adapter_its_share():
    """A rank of 1 for (5, 4) in two directions and 3 in a third: by size the first direction leads, in balance the
    small one's only direction does, which is all of it.
    """
    pair = [one([[5.0, 0, 0], [0, 4, 0], [0, 0, 0]]), one([[0.0, 0, 0], [0, 0, 0], [0, 0, 3]])]
    by_size = delta(made(pair, "ctm", rank=1, balance=0.0))
    assert torch.allclose(by_size, torch.diag(torch.tensor([5.0, 0.0, 0.0])), atol=1e-6)
    balanced = delta(made(pair, "ctm", rank=1, balance=1.0))
    assert torch.allclose(balanced, torch.diag(torch.tensor([0.0, 0.0, 3.0])), atol=1e-6)


def test_shared_directions_beat_every_other_pair():
    """The iteration finds the most energy: no rotation of the two bases, and no random pair, holds more."""
    changes = torch.stack([factors(name, 12, 10, 4).delta(torch.float64) for name in "abc"])
    U, V = combine_cores.directions(changes, 3, 0.0)
    held = float((U.mT @ changes @ V).square().sum())
    generator = torch.Generator().manual_seed(1)
    for step in (0.01, 0.1, 1.0, 10.0):
        for _ in range(20):
            near_U, near_V = (
                torch.linalg.qr(basis + step * torch.randn(basis.shape, generator=generator, dtype=torch.float64)).Q
                for basis in (U, V)
            )
            assert float((near_U.mT @ changes @ near_V).square().sum()) <= held * (1 + 1e-9)


def test_rank_0_is_the_largest_of_the_adapters_and_one_of_full_rank_loses_nothing():
    pair = [Adapter({Q: factors("a", 20, 15, 3)}), Adapter({Q: factors("b", 20, 15, 5)})]
    assert made(pair, "ctm").adapter.rank == 5
    whole = made(pair, "ctm", rank=8)
    assert whole.residual < 1e-6 and torch.allclose(
        delta(whole), combine.weighted_sum([(one.factors[Q], 1.0) for one in pair]).delta(), atol=1e-4
    )


@pytest.mark.parametrize("method", ["svc", "stock", "median", "slerp", "ctm"])
def test_new_methods_repeat_from_their_recipes_and_can_be_trimmed(method, tmp_path):
    pair = [Adapter({Q: factors(name, 64, 64, 4), CONV: factors(name, 64, 64, 4, kernel=3)}) for name in "ab"]
    for adapter in pair:  # so that they have something in common
        adapter.factors[Q].up[:, 0], adapter.factors[Q].down[0] = 1.0, 1.0
        adapter.factors[CONV].up[:, 0], adapter.factors[CONV].down[0] = 1.0, 1.0
    path = write(made(pair, method, [1.0, 0.5], rank=3).adapter, tmp_path / "a.safetensors")
    found = read(path)
    assert found.rank == 3
    assert_same(read(write(blend.blend(recipe.read(found.metadata), pair).adapter, tmp_path / "b.safetensors")), found)
