"""A cap on how far an adapter changes any one layer.

Legend: r rank, A (r, n) and B (m, r) a layer's factors, ΔW = s B A its change with the scale s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

TOLERANCE = 1e-3
"""A norm that exceeds the cap by less is left alone: GPUs round products to 10 bits, and a layer at the cap must stay
as it is where a step was skipped.
"""


class FactorPair(NamedTuple):
    """One layer's factors, as the optimizer changes them: float32."""

    down: Tensor
    """A: (r, in) or (r, in, kh, kw)."""
    up: Tensor
    """B: (out, r) or (out, r, 1, 1)."""
    scale: float


class NormCap:
    """Scales the factors of layers down whose ‖ΔW‖ (Frobenius) is above ``most``, both by the same number, as
    sd-scripts' ``scale_weight_norms`` does after each step.

    It reads nothing back from a GPU, so that it can be captured in a CUDA graph. Layers of one shape are measured
    together.
    """

    def __init__(self, pairs: Iterable[FactorPair], most: float):
        self.most = most
        by_shape: dict[tuple, list[FactorPair]] = defaultdict(list)
        for pair in pairs:
            by_shape[(pair.down.shape, pair.up.shape)].append(pair)
        self._groups = [
            (alike, torch.tensor([pair.scale for pair in alike], device=alike[0].down.device))
            for alike in by_shape.values()
        ]

    @torch.no_grad()
    def apply(self) -> None:
        """Brings every layer to the cap, or below."""
        for pairs, scales in self._groups:
            found = norms(pairs, scales)
            roots = (self.most / found).sqrt().where(found > self.most * (1 + TOLERANCE), 1.0)
            for pair, root in zip(pairs, roots.unbind(), strict=True):
                pair.down.mul_(root)
                pair.up.mul_(root)


def norms(pairs: list[FactorPair], scales: Tensor) -> Tensor:
    """(N,) float32: ‖s B A‖ of N pairs of one shape. ‖B A‖² is the sum of BᵀB ∘ A Aᵀ, which needs no (m, n) matrix."""
    down = torch.stack([pair.down.flatten(1) for pair in pairs])
    up = torch.stack([pair.up.flatten(1) for pair in pairs])
    squares = ((down @ down.mT) * (up.mT @ up)).sum((1, 2))
    return scales.abs() * squares.clamp(min=0).sqrt()
