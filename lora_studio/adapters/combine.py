"""The arithmetic of blends, one module at a time: several adapters' factors become one pair of factors.

Letters: ``B`` (out, r) and ``A`` (r, in) are an adapter's factors, ``r`` its rank, ``R`` the sum of the ranks, ``U``
(out, R) a basis that all changes share, ``C`` (R, in) a change's coordinates in it.

Methods that speak of entries (TIES, DARE, pruning) work on the coordinates in the left singular basis that all changes
share (KnOTS, Stoica et al. 2025, section 4.1), a thin matrix, and so never on the full ΔW.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from lora_studio.adapters import svd
from lora_studio.adapters.adapter import Factors

Part = tuple[Factors, float]
"""One adapter's factors of a module, and its weight there."""


def weighted_sum(parts: Sequence[Part]) -> Factors:
    """Σ wᵢ (αᵢ/rᵢ) BᵢAᵢ as one pair of factors, (out, R) and (R, in), float32: exact.

    Both factors take the root of the scale, so that neither grows.
    """
    ups, downs = [], []
    for factors, weight in parts:
        total = weight * factors.scale
        root = abs(total) ** 0.5
        ups.append(factors.up.float() * (root if total >= 0 else -root))
        downs.append(factors.down.float() * root)
    up, down = torch.cat(ups, dim=1), torch.cat(downs)
    return Factors(down, up, float(down.shape[0]))


def coordinates(parts: Sequence[Part]) -> tuple[Tensor, list[Tensor]]:
    """U (out, R), orthonormal, and the coordinates Cᵢ (R, in) of each change: wᵢΔWᵢ = U·Cᵢ, float32.

    U is the left singular basis of all the changes side by side, largest first.
    """
    pairs = [(B * weight, A.double()) for (B, A), weight in ((factors.matrices(), weight) for factors, weight in parts)]
    basis = svd.thin(torch.cat([B for B, _ in pairs], dim=1))
    sides = basis.R.split([A.shape[0] for _, A in pairs], dim=1)
    inside = [side @ A for side, (_, A) in zip(sides, pairs, strict=True)]
    gram = reduce(torch.add, (C @ C.T for C in inside))
    P = torch.linalg.eigh(gram)[1].flip(1)
    return basis.columns(P).float(), [(P.T @ C).float() for C in inside]


def entrywise(parts: Sequence[Part], rule: Callable[[Sequence[Tensor]], Tensor]) -> Factors:
    """The factors U and ``rule(C₁, C₂, …)``: a rule for entries, applied to the changes' coordinates."""
    U, changes = coordinates(parts)
    C = rule(changes)
    kernel = parts[0][0].shape[2:]
    if kernel:
        return Factors(C.reshape(len(C), -1, *kernel), U[:, :, None, None], float(len(C)))
    return Factors(C, U, float(len(C)))


def trimmed(C: Tensor, density: float) -> Tensor:
    """``C`` with all but the largest share ``density`` of its entries set to 0."""
    keep = max(1, round(density * C.numel()))
    threshold = C.abs().flatten().kthvalue(C.numel() - keep + 1).values
    return torch.where(C.abs() >= threshold, C, 0)


def prune(changes: Sequence[Tensor], density: float) -> Tensor:
    """The sum of the trimmed changes."""
    return torch.stack([trimmed(C, density) for C in changes]).sum(0)


def ties(changes: Sequence[Tensor], density: float) -> Tensor:
    """Trims, elects each entry's sign by the sum, and takes the mean of the entries that have it (Yadav et al. 2023,
    section 3).
    """
    kept = torch.stack([trimmed(C, density) for C in changes])
    sign = kept.sum(0).sign()
    agree = (kept.sign() == sign) & (kept != 0)
    return torch.where(agree, kept, 0).sum(0) / agree.sum(0).clamp(min=1)


def dare(changes: Sequence[Tensor], density: float, generator: torch.Generator) -> Tensor:
    """Drops a random share 1 − ``density`` of the entries, divides the others by ``density``, and adds them up (Yu et
    al. 2024, section 3).
    """
    return torch.stack(
        [torch.where(torch.rand(C.shape, generator=generator) < density, C / density, 0) for C in changes]
    ).sum(0)


def generator(seed: int, path: str) -> torch.Generator:
    """The random numbers of the module at ``path``: the same whichever other modules a blend has."""
    return torch.Generator().manual_seed(seed ^ zlib.crc32(path.encode()))
