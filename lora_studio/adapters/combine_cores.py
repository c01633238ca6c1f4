"""Blends that work on the changes' singular vectors, module by module: singular value calibration and
Compress-then-Merge.

In bases that all changes share on both sides a change is a small matrix, its core, with the same singular values and
the same inner products. So nothing as large as a weight is ever made.

Letters: ``R`` the sum of the adapters' ranks; ``Q`` (out, R) and ``P`` (in, R) the bases; ``M`` (R, R) a change's core,
wᵢΔWᵢ = Q·Mᵢ·Pᵀ; ``r`` the rank of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lora_studio.adapters import svd
from lora_studio.adapters.adapter import Factors
from lora_studio.adapters.combine import Part

_ROUNDS = 50
_SETTLED = 1e-7
"""Gain in the share of the changes that shared directions hold, below which they are found."""
_NOTHING = 1e-12
"""Of the whole, squared: less of a change in a direction is rounding."""


class Cores(NamedTuple):
    """Changes in shared bases."""

    left: svd.Thin
    """Q."""
    right: svd.Thin
    """P."""
    each: Tensor
    """(N, R, R) float64."""
    kernel: tuple[int, ...]
    """(kh, kw) of a convolution, () of a linear layer."""

    def factors(self, X: Tensor, S: Tensor, Yt: Tensor) -> Factors:
        """Q·X·diag(S)·Yᵀ·Pᵀ from X (R, r), S (r,) and Yᵀ (r, R), the scale shared between both factors: float32."""
        root = S.sqrt()
        up, down = self.left.columns(X * root).float(), self.right.columns(Yt.mT * root).mT.float()
        if self.kernel:
            up, down = up[:, :, None, None], down.reshape(len(S), -1, *self.kernel)
        return Factors(down.contiguous(), up.contiguous(), float(len(S)))


def cores(parts: Sequence[Part]) -> Cores:
    """The changes wᵢΔWᵢ in the bases that two QR decompositions give."""
    pairs = [
        (B.double() * weight, A.double()) for (B, A), weight in ((one.matrices(), weight) for one, weight in parts)
    ]
    left, right = svd.thin(torch.cat([B for B, _ in pairs], 1)), svd.thin(torch.cat([A for _, A in pairs]).mT)
    ranks = [A.shape[0] for _, A in pairs]
    sides = zip(left.R.split(ranks, 1), right.R.split(ranks, 1), strict=True)
    return Cores(left, right, torch.stack([L @ R.mT for L, R in sides]), parts[0][0].shape[2:])


def calibrated(parts: Sequence[Part]) -> Factors:
    """The weighted sum with its singular values calibrated."""
    shared = cores(parts)
    X, S, Yt = torch.linalg.svd(shared.each.sum(0), full_matrices=False)
    return shared.factors(X, S / overcounting(shared.each, X, S, Yt), Yt)


def overcounting(changes: Tensor, U: Tensor, S: Tensor, Vt: Tensor) -> Tensor:
    """How many times each singular direction of the sum is counted, at least once (k,): singular value calibration (Li
    et al. 2026, "When Shared Knowledge Hurts", with α = 1, so that nothing is made stronger).

    The response of a change in direction k is uₖᵀΔWᵢ. A change is counted ⟨uₖᵀΣΔW, uₖᵀΔWᵢ⟩ / ‖uₖᵀΔWᵢ‖² times there; the
    mean of that over the changes is taken where it is positive for all, else 1.

    Args:
        changes: (N, m, n), whose sum is U·diag(S)·Vᵀ.
    """
    responses = U.mT @ changes
    energies = responses.square().sum(-1)
    along = ((S[:, None] * Vt) * responses).sum(-1)
    present = energies > _NOTHING * S.square().max()
    counted = torch.where(present, along / energies.where(present, 1.0), 0.0)
    return torch.where((counted > 0).all(0), counted.mean(0).clamp(min=1), 1.0)


def compressed(parts: Sequence[Part], rank: int, balance: float) -> Factors:
    """The weighted sum within ``rank`` directions on each side that the changes share: Compress-then-Merge (He et al.
    2026). Each change is projected before they are added up, so the result has that rank without an SVD of
    the sum.
    """
    shared = cores(parts)
    rank = min(rank, *shared.each.shape[1:], shared.left.X.shape[-2], shared.right.X.shape[-2])
    U, V = directions(shared.each, rank, balance)
    X, S, Yt = torch.linalg.svd(U.mT @ shared.each.sum(0) @ V)
    return shared.factors(U @ X, S, Yt @ V.mT)


def directions(changes: Tensor, rank: int, balance: float) -> tuple[Tensor, Tensor]:
    """U (m, r) and V (n, r), orthonormal, with the largest Σ‖UᵀΔWᵢV‖²: a Tucker decomposition in two of three modes, by
    higher-order orthogonal iteration from the singular vectors of the changes side by side (De Lathauwer et al. 2000).

    Args:
        changes: (N, m, n) float64.
        balance: 0 counts the changes by their size (β = 1 in the paper), 1 as if all had the mean size (β = 0).
    """
    sizes = changes.flatten(1).norm(dim=1)
    even = sizes.mean() / sizes.where(sizes > 0, 1.0)
    changes = changes * (1 - balance + balance * even)[:, None, None]
    whole, held = float(changes.square().sum()), 0.0
    V = _leading(changes.mT @ changes, rank)[0]
    for _ in range(_ROUNDS):
        half = changes @ V
        U, _ = _leading(half @ half.mT, rank)
        half = changes.mT @ U
        V, energy = _leading(half @ half.mT, rank)
        if energy - held <= _SETTLED * whole:
            break
        held = energy
    return U, V


def _leading(grams: Tensor, rank: int) -> tuple[Tensor, float]:
    """The leading eigenvectors (m, r) of a sum of Gram matrices (N, m, m), and the sum of their eigenvalues."""
    values, vectors = torch.linalg.eigh(grams.sum(0))
    return vectors[:, -rank:].flip(1), float(values[-rank:].sum())
