"""Blends that are sums of the adapters with weights of their own, module by module: Model Stock, the geometric median
and slerp.

Their weights follow from lengths and angles alone, so the Gram matrix of the changes is all that they need.

Letters: ``N`` adapters with the changes xᵢ = wᵢΔWᵢ, ``G`` (N, N) float64 with Gᵢⱼ = ⟨xᵢ, xⱼ⟩, ``c`` (N,) the weights
that the changes get.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lora_studio.adapters import svd
from lora_studio.adapters.adapter import Factors
from lora_studio.adapters.combine import Part, weighted_sum

Numbers = NDArray[np.float64]
_ROUNDS = 500
_NEAR = 1e-6
"""Of the largest length: nearer than this, two changes are the same."""
_ALIGNED = 1e-7
"""Below this sine of the angle an arc is a straight line, or every way between opposites is as short as the others."""


def reweighed(parts: Sequence[Part], rule: Callable[[Numbers], Numbers]) -> Factors | None:
    """Σ cᵢxᵢ with the weights c = ``rule(G)``, exact; None where all of them are 0."""
    pairs = [factors.matrices() for factors, _ in parts]
    weights = np.array([weight for _, weight in parts])
    inner = [[float(svd.inner(B1, A1, B2, A2)) for B2, A2 in pairs] for B1, A1 in pairs]
    G = np.array(inner) * np.outer(weights, weights)
    scaled = zip(parts, rule(G), strict=True)
    kept = [(part[0], part[1] * c) for index, (part, c) in enumerate(scaled) if c and G[index, index]]
    return weighted_sum(kept) if kept else None


def model_stock(G: Numbers) -> Numbers:
    """The weights of the average, times t = N·cos θ / (1 + (N − 1)·cos θ) (Jang et al. 2024, for N models), θ being the
    angle between two changes, by the mean of all cosines. 0 where that is not positive.
    """
    count = len(G)
    if count == 1:
        return np.ones(1)
    lengths = np.sqrt(np.diag(G))
    among = np.outer(lengths, lengths)
    cosines = np.divide(G, among, out=np.zeros_like(G), where=among > 0)
    cosine = max(0.0, cosines[~np.eye(count, dtype=bool)].mean())
    return np.full(count, cosine / (1 + (count - 1) * cosine))


def geometric_median(G: Numbers) -> Numbers:
    """The weights c ≥ 0, Σcᵢ = 1, of the point x = Σcᵢxᵢ with the least Σ‖x − xᵢ‖: Weiszfeld's iteration from the mean,
    with Vardi and Zhang's step where it meets one of the points (2000, equation 2.6).
    """
    c = np.full(len(G), 1 / len(G))
    near = _NEAR * math.sqrt(np.diag(G).max())
    for _ in range(_ROUNDS):
        moved = _weiszfeld(G, c, near)
        if np.abs(moved - c).max() < 1e-10:
            break
        c = moved
    return c


def _weiszfeld(G: Numbers, c: Numbers, near: float) -> Numbers:
    """One step from the point Σcᵢxᵢ."""
    distances = np.sqrt(np.maximum(c @ G @ c - 2 * G @ c + np.diag(G), 0.0))
    here = distances <= near
    if here.all():
        return np.full(len(c), 1 / len(c))
    pulls = np.where(here, 0.0, 1 / np.where(here, 1.0, distances))
    others = pulls / pulls.sum()
    if not here.any():
        return others
    point = here / here.sum()
    towards = pulls - pulls.sum() * point  # Σ (xⱼ − x) / ‖xⱼ − x‖ in weights of the points
    pull = math.sqrt(max(towards @ G @ towards, 0.0))
    stays = min(1.0, here.sum() / pull) if pull else 1.0
    return (1 - stays) * others + stays * point


def slerp(G: Numbers, share: float) -> Numbers:
    """The weights of two changes on the arc between them (Shoemake 1985): the direction turns by ``share``
    of the angle, the length goes from one's to the other's in a straight line.
    """
    first, second = np.sqrt(np.diag(G))
    if not (first and second):
        return np.array([1 - share, share])
    angle = math.acos(min(1.0, max(-1.0, G[0, 1] / (first * second))))
    if math.sin(angle) < _ALIGNED:
        return np.array([1 - share, share])
    length = (1 - share) * first + share * second
    turns = np.array([math.sin((1 - share) * angle), math.sin(share * angle)]) / math.sin(angle)
    return turns * length / np.array([first, second])
