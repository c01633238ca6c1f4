"""Shrinking: literal matrices, the exact residual, and sizes that hold for the real file."""

from __future__ import annotations

import pytest
import torch

from lora_studio.adapters import Adapter, Factors, resize, write
from lora_studio.errors import AdapterError
from tests.adapters.adapter_samples import BLOCK, Q, assert_same, drawn, factors, small

KEY = f"{BLOCK}.attn1.to_k"


def diagonal(*values: float) -> Factors:
    """ΔW = diag(values)."""
    return Factors(torch.eye(len(values)), torch.diag(torch.tensor(values)), float(len(values)))


def test_literal_rank():
    """diag(3, 2, 1) cut to rank 2 is diag(3, 2, 0), and √(1 / 14) is lost."""
    cut = resize.to_rank(Adapter({Q: diagonal(3.0, 2.0, 1.0)}), 2)
    assert torch.allclose(cut.adapter.factors[Q].delta(), torch.diag(torch.tensor([3.0, 2.0, 0.0])), atol=1e-6)
    assert cut.residual == pytest.approx((1 / 14) ** 0.5) and cut.residuals[Q] == pytest.approx(cut.residual)
    assert cut.adapter.factors[Q].rank == 2 and cut.kept == pytest.approx(13 / 14)


@pytest.mark.parametrize(("energy", "rank"), [(0.6, 1), (9 / 14, 1), (0.65, 2), (13 / 14, 2), (0.93, 3), (1.0, 3)])
def test_literal_energy(energy, rank):
    assert resize.to_energy(Adapter({Q: diagonal(3.0, 2.0, 1.0)}), energy).adapter.factors[Q].rank == rank


def test_modules_within_the_rank_stay_to_the_bit():
    adapter = small()
    assert_same(resize.to_rank(adapter, 8).adapter, adapter)
    cut = resize.to_rank(adapter, 3)
    path = "unet.mid_block.attentions.0.proj_in"
    assert cut.adapter.factors[path] is adapter.factors[path] and cut.residuals[path] == 0


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_residual_is_that_of_the_matrices(rank):
    """Told by singular values, found again by subtracting the full matrices; alphas, kinds of layers and dtypes are
    kept.
    """
    adapter = small()
    cut = resize.to_rank(adapter, rank)
    missing = whole = 0.0
    for path, one in adapter.factors.items():
        smaller = cut.adapter.factors[path]
        off = float((one.delta() - smaller.delta()).norm())
        assert cut.residuals[path] == pytest.approx(off / float(one.delta().norm()), abs=1e-6)
        assert (smaller.alpha, smaller.shape, smaller.down.dtype) == (one.alpha, one.shape, one.down.dtype)
        missing, whole = missing + off**2, whole + float(one.delta().norm()) ** 2
    assert cut.residual == pytest.approx((missing / whole) ** 0.5, rel=1e-5)


def test_a_halved_file_stays_half_precision():
    cut = resize.to_rank(small().map(lambda tensor: tensor.half()), 2).adapter
    assert {one.up.dtype for one in cut.factors.values()} == {torch.float16}


@pytest.mark.parametrize("megabytes", [0.012, 0.02, 0.03])
def test_size_holds_for_the_written_file_and_is_used_up(megabytes, tmp_path):
    cut = resize.to_size(small(), megabytes)
    size = write(cut.adapter, tmp_path / "a.safetensors").stat().st_size
    assert megabytes * 1e6 - 5_000 < size <= megabytes * 1e6


def test_size_spends_rank_where_the_energy_is():
    """A module a hundred times as strong gets its ranks first."""
    adapter = Adapter({Q: factors(Q, 64, 64, rank=8, alpha=800.0), KEY: factors(KEY, 64, 64, rank=8, alpha=8.0)})
    cut = resize.to_size(adapter, 0.0062)
    assert cut.adapter.factors[Q].rank > 4 and cut.adapter.factors[KEY].rank == 1
    even = resize.to_rank(adapter, (cut.adapter.factors[Q].rank + 1) // 2)
    assert cut.residual < even.residual


def test_what_cannot_be_is_refused():
    adapter = Adapter({Q: diagonal(1.0, 2.0)})
    for call, reason in (
        (lambda: resize.to_rank(adapter, 0), "Rank 0"),
        (lambda: resize.to_energy(adapter, 0), "share of 0"),
        (lambda: resize.to_energy(adapter, float("nan")), "nan"),
        (lambda: resize.to_size(adapter, 1e-4), "smaller than 0.00 MB"),
        (lambda: resize.to_rank(Adapter({Q: factors(Q, 8, 8, dora=True)}), 2), "DoRA"),
    ):
        with pytest.raises(AdapterError, match=reason):
            call()


def test_an_untrained_adapter_shrinks_to_an_untrained_one():
    zero = Adapter({Q: Factors(drawn("d", (4, 8)), torch.zeros(6, 4), 4.0)})
    for cut in (resize.to_rank(zero, 2), resize.to_energy(zero, 0.9)):
        assert cut.residual == 0 and cut.adapter.factors[Q].delta().abs().max() == 0


def test_what_cancels_is_balanced_before_it_is_rounded():
    """A PiSSA is (BA − B₀A₀) with both near W: rounded to fp16 as it is, its small difference lost five times the
    digits that a LoRA loses.
    """
    A, B = drawn("A", (8, 96)), drawn("B", (64, 8))
    near = (A + 0.05 * drawn("a", A.shape), B + 0.05 * drawn("b", B.shape))
    change = near[1].double() @ near[0].double() - B.double() @ A.double()
    adapter = Adapter({Q: Factors(torch.cat([near[0], A]), torch.cat([near[1], -B], dim=1), 16.0)})
    rounded = {
        name: float((one.to(torch.float16).factors[Q].delta().double() - change).norm() / change.norm())
        for name, one in {"as it is": adapter, "balanced": resize.balanced(adapter)}.items()
    }
    assert rounded["as it is"] > 3e-3 and rounded["balanced"] < 5e-4
    exact = resize.balanced(adapter).factors[Q]
    assert exact.alpha == 16.0 and (exact.delta().double() - change).norm() / change.norm() < 1e-5
