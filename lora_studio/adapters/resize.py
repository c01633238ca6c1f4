"""Making an adapter smaller: the best one of a rank, of a share of its energy, or of a size in bytes.

By Eckart and Young the truncated SVD of each ΔW is the nearest matrix of its rank; how near is known exactly from
the singular values that were left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from lora_studio.adapters import formats, svd
from lora_studio.adapters.adapter import Adapter, Factors
from lora_studio.errors import AdapterError
from lora_studio.language import tr

MB = 1_000_000
_AT_ONCE = 64
"""Modules of a stream that are cut together: enough for all threads, and few against a model's hundreds."""
_ROUNDING = 16
"""Bytes by which a header may grow: differing ranks are written as a word, and it is padded to 8 bytes."""


class Resized(NamedTuple):
    """A smaller adapter and what it costs."""

    adapter: Adapter
    residual: float
    """‖ΔW − ΔW_r‖ / ‖ΔW‖ over all modules together (Frobenius)."""
    residuals: dict[str, float]
    """The same of each module."""

    @property
    def kept(self) -> float:
        """Share of the change's energy ‖ΔW‖² that is left."""
        return 1 - self.residual**2


def to_rank(adapter: Adapter, rank: int | Mapping[str, int]) -> Resized:
    """The nearest adapter of at most ``rank``, the same everywhere or each path's own; modules that have no more stay
    as they are, to the bit.

    Raises:
        AdapterError: the rank is below 1, or the adapter is a DoRA.
    """
    ranks = dict.fromkeys(adapter.factors, rank) if isinstance(rank, int) else rank
    smallest = min(ranks.values(), default=1)
    _require(smallest >= 1, tr("Rank {rank} leaves nothing.", rank=smallest), tr("Choose a rank of 1 or more."))
    adapter = adapter.in_factors()
    larger = {path: one for path, one in adapter.factors.items() if one.rank > ranks[path]}
    return _reduced(adapter, larger, lambda path, S: ranks[path], keep=max(ranks.values(), default=1))


def streamed(modules: Iterable[tuple[str, Factors]], rank: int, metadata: Mapping[str, str]) -> Resized:
    """``to_rank`` of modules that are made one after the other, so that all of them are never in memory uncut.

    Args:
        rank: 0 cuts nothing.
    """
    if not rank:
        return Resized(Adapter(dict(modules), metadata), 0.0, {})
    factors: dict[str, Factors] = {}
    residuals: dict[str, float] = {}
    lost = whole = 0.0
    rest = iter(modules)
    while some := dict(islice(rest, _AT_ONCE)):
        cut, energy = to_rank(Adapter(some), rank), _energy(some)
        factors.update(cut.adapter.factors)
        residuals.update(cut.residuals)
        whole, lost = whole + energy, lost + energy * cut.residual**2
    return Resized(Adapter(factors, metadata), math.sqrt(lost / whole) if whole else 0.0, residuals)


def against(
    modules: Iterable[tuple[str, Factors]], exact: Callable[[str], Factors], metadata: Mapping[str, str]
) -> Resized:
    """An adapter of ``modules``, with its distance from the factors that ``exact`` gives for each path."""
    factors: dict[str, Factors] = {}
    residuals: dict[str, float] = {}
    lost = whole = 0.0
    for path, made in modules:
        true, near = exact(path).matrices(), made.matrices()
        size, product = float(svd.inner(*true, *true)), float(svd.inner(*true, *near))
        missing = max(0.0, size - 2 * product + float(svd.inner(*near, *near)))
        factors[path], residuals[path] = made, math.sqrt(missing / size) if size else 0.0
        whole, lost = whole + size, lost + missing
    return Resized(Adapter(factors, metadata), math.sqrt(lost / whole) if whole else 0.0, residuals)


def balanced(adapter: Adapter) -> Adapter:
    """The same change in factors U·√S and √S·Vᵀ. Where parts of a module's factors cancel each other (a PiSSA's), as
    many digits would be lost when they are rounded; here each stays as precise as its share of the change.

    Raises:
        AdapterError: the adapter is a DoRA.
    """
    _require_plain(adapter)
    factors = {
        path: _cut(adapter.factors[path], U[index], S[index], Vt[index])
        for paths, (U, S, Vt) in svd.over(adapter.factors, svd.product)
        for index, path in enumerate(paths)
    }
    return replace(adapter, factors={path: factors[path] for path in adapter.factors})


def to_energy(adapter: Adapter, energy: float) -> Resized:
    """Each module at the smallest rank that keeps the share ``energy`` of its ‖ΔW‖².

    Raises:
        AdapterError: the share is not within (0, 1], or the adapter is a DoRA.
    """
    _require(
        0 < energy <= 1,
        tr("A share of {share} cannot be kept.", share=energy),
        tr("Choose a share above 0 and up to 1, such as 0.99."),
    )
    return _reduced(adapter.in_factors(), adapter.factors, lambda path, S: rank_for(S, energy))


def to_size(adapter: Adapter, megabytes: float, dtype: torch.dtype | None = None) -> Resized:
    """The nearest adapter whose kohya file has at most ``megabytes`` (of 1,000,000 bytes) when saved as ``dtype``.

    Rank goes where it keeps most energy for its bytes, so that ranks differ between modules; each keeps at least 1.

    Raises:
        AdapterError: not even rank 1 everywhere fits (the smallest size is named), or the adapter is a DoRA.
    """
    _require_plain(adapter)
    adapter = adapter.in_factors()
    unit = {
        path: (one.up.shape[0] + one.down[0].numel()) * (one.down.dtype if dtype is None else dtype).itemsize
        for path, one in adapter.factors.items()
    }
    fixed = (
        _ROUNDING + formats.size(adapter, dtype) - sum(unit[path] * one.rank for path, one in adapter.factors.items())
    )
    smallest = fixed + sum(unit.values())
    _require(
        megabytes * MB >= smallest,
        tr("The adapter cannot be made smaller than {size:.2f} MB.", size=smallest / MB),
        tr("Choose a larger size, or save it as fp16."),
    )
    ranks = _spent(_spectra(adapter.factors), unit, megabytes * MB - smallest)
    return _reduced(adapter, adapter.factors, lambda path, S: ranks[path])


def rank_for(S: Tensor, energy: float) -> int:
    """The smallest number of leading singular values (k,) that hold ``energy`` of the sum of squares; at least 1."""
    kept = S.double().square().cumsum(0)
    return int((kept < kept[-1] * energy * (1 - 1e-12)).sum().clamp(max=len(S) - 1)) + 1


def _require(condition: bool, what: str, do: str) -> None:
    if not condition:
        raise AdapterError(what, do=do)


def _require_plain(adapter: Adapter) -> None:
    adapter.require_factors(tr("resized"))
    if adapter.kind.needs_base:
        raise AdapterError(
            tr("A DoRA's factors cannot be resized alone, since its change also depends on the base model."),
            do=tr("Export it as plain LoRA first."),
        )


def _spectra(factors: Mapping[str, Factors]) -> dict[str, Tensor]:
    """Singular values of every ΔW, float64, descending."""
    return {path: S for paths, spectra in svd.over(factors, svd.values) for path, S in zip(paths, spectra, strict=True)}


def _spent(spectra: Mapping[str, Tensor], unit: Mapping[str, int], budget: float) -> dict[str, int]:
    """Ranks from 1 upwards, the budget of bytes spent on the most energy per byte first.

    Singular values descend, so a module's next rank is never worth more than its last: the greedy choice is the best
    but for the last few bytes.
    """
    ranks = dict.fromkeys(spectra, 1)
    worth = sorted(
        (-(value**2) / unit[path], index, path)
        for path, S in spectra.items()
        for index, value in enumerate(S.tolist())
        if index and value > 0
    )
    for _, index, path in worth:
        if ranks[path] == index and unit[path] <= budget:
            ranks[path], budget = index + 1, budget - unit[path]
    return ranks


def _reduced(
    adapter: Adapter, chosen: Mapping[str, Factors], rank: Callable[[str, Tensor], int], keep: int | None = None
) -> Resized:
    """``chosen`` modules cut to ``rank(path, singular values)``; the others stay."""
    _require_plain(adapter)
    factors, residuals = dict(adapter.factors), dict.fromkeys(adapter.factors, 0.0)
    lost = whole = 0.0
    for paths, (U, S, Vt) in svd.over(chosen, partial(svd.product, keep=keep)):
        energies = S.square()
        for index, path in enumerate(paths):
            r = min(rank(path, S[index]), S.shape[1])
            missing, all_of_it = float(energies[index, r:].sum()), float(energies[index].sum())
            if r < chosen[path].rank:
                factors[path] = _cut(chosen[path], U[index, :, :r], S[index, :r], Vt[index, :r])
                residuals[path] = math.sqrt(missing / all_of_it) if all_of_it else 0.0
                lost += missing
            whole += all_of_it
    whole += _energy({path: one for path, one in adapter.factors.items() if path not in chosen})
    return Resized(replace(adapter, factors=factors), math.sqrt(lost / whole) if whole else 0.0, residuals)


def _energy(factors: Mapping[str, Factors]) -> float:
    """Σ‖ΔW‖² of the modules."""
    return sum(float(svd.inner(B, A, B, A).sum()) for _, B, A in svd.like_shaped(factors))


def _cut(old: Factors, U: Tensor, S: Tensor, Vt: Tensor) -> Factors:
    """U·S·Vᵀ as factors of equal size, in the old one's alpha, dtype and kind of layer."""
    alpha = old.alpha if old.alpha > 0 else float(len(S))
    root = (S * len(S) / alpha).sqrt()
    up, down = (U * root).to(old.up.dtype), (root[:, None] * Vt).to(old.down.dtype)
    if old.down.dim() == 4:
        up, down = up[:, :, None, None], down.reshape(len(S), *old.down.shape[1:])
    return Factors(down.contiguous(), up.contiguous(), alpha)
