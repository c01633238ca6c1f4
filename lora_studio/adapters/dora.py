"""Changes that depend on the weight they are applied to: DoRA (Liu et al. 2024, section 4.1), and those of outputs.

Of a DoRA W' = m · (W + ΔV) / ‖W + ΔV‖, the norm taken over each output's inputs, as peft and LyCORIS do. Other readers
normalize otherwise, so a DoRA is exported as a plain LoRA: the best approximation of W' − W at a chosen rank. So can
all others be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from lora_studio.adapters import stored, svd
from lora_studio.adapters.adapter import Adapter, Factors
from lora_studio.adapters.output_change import OutputChange
from lora_studio.errors import AdapterError
from lora_studio.families import layout
from lora_studio.language import tr

Weights = Mapping[str, Tensor] | Callable[[str], Tensor]
"""The base model's weights by canonical path, (out, in) or (out, in, kh, kw), any dtype; a function may load them one
by one.
"""


def change(factors: Factors | OutputChange, weight: Tensor | None) -> Tensor:
    """ΔW = W' − W in float32, in the weight's shape; for factors without a magnitude plainly (alpha / r)·up·down.

    Args:
        weight: W; only factors without a magnitude need none.

    Raises:
        AdapterError: the weight has another shape.
    """
    if weight is None:
        assert isinstance(factors, Factors) and factors.magnitude is None, "this change depends on the weight"
        return factors.delta()
    _require_shape(factors, weight)
    if isinstance(factors, OutputChange):
        return factors.change(weight.detach().float())
    if factors.magnitude is None:
        return factors.delta()
    W = weight.detach().float()
    return (W + factors.delta()) * _gain(factors, W).reshape(-1, *(1,) * (W.dim() - 1)) - W


def depends(one: Factors | OutputChange) -> bool:
    """Whether ΔW depends on W."""
    return isinstance(one, OutputChange) or one.magnitude is not None


def _require_shape(factors: Factors | OutputChange, weight: Tensor) -> None:
    if layout.completed(factors.shape, tuple(weight.shape)) != tuple(weight.shape):
        raise AdapterError(
            tr(
                "The adapter changes a weight of shape {shape}, and the base model's is {base_shape}.",
                shape=str(factors.shape),
                base_shape=str(tuple(weight.shape)),
            ),
            do=tr("Choose the base model it was made for."),
        )


def _gain(factors: Factors, W: Tensor) -> Tensor:
    """m / ‖W + ΔV‖ (out,) of a DoRA."""
    assert factors.magnitude is not None
    norm = (W + factors.delta()).flatten(1).norm(dim=1)
    return factors.magnitude.float() / norm.clamp_min(torch.finfo(torch.float32).tiny)


def for_web_uis(adapter: Adapter, weights: Weights) -> Adapter:
    """The adapter with magnitudes that give its exact change in ComfyUI and Forge: m·‖W‖ / ‖W + ΔV‖ for each output.

    They compute m·(W + ΔV) / ‖W‖ − W (``weight_decompose`` in ComfyUI's ``comfy/weight_adapter/base.py``).

    Raises:
        AdapterError: a weight is missing or of another shape.
    """
    factors = dict(adapter.factors)
    for path, one in adapter.factors.items():
        if one.magnitude is not None:
            W = weight_of(weights, path).detach().float()
            _require_shape(one, W)
            factors[path] = replace(one, magnitude=_gain(one, W) * W.flatten(1).norm(dim=1))
    return replace(adapter, factors=factors)


def as_full(adapter: Adapter, weights: Weights) -> Adapter:
    """The adapter as full differences ΔW, float32.

    Raises:
        AdapterError: a weight is missing or of another shape, or the adapter changes more than weights.
    """
    adapter.require_weight_changes(tr("made a full difference"))
    factors = {}
    for path, one in adapter.changes.items():
        delta = change(one, weight_of(weights, path) if depends(one) else None)
        factors[path] = stored.factors({"diff": delta}, path)
    return replace(adapter, factors=factors, outputs={})


class Plain(NamedTuple):
    """An adapter as plain LoRA."""

    adapter: Adapter
    residuals: dict[str, float]
    """‖ΔW − ΔW_r‖ / ‖ΔW‖ of each module that depended on the weight."""
    residual: float
    """The same over all of them together."""


def as_lora(adapter: Adapter, weights: Weights, rank: int | Mapping[str, int]) -> Plain:
    """The adapter with every module whose change depends on the weight replaced by the best LoRA of ``rank``, the same
    for all or each path's own; plain modules stay as they are.

    Raises:
        AdapterError: a weight is missing or of another shape, or the adapter changes more than weights.
    """
    adapter.require_weight_changes(tr("made a LoRA"))
    factors, residuals = {}, {}
    lost = total = 0.0
    for path, one in adapter.changes.items():
        if isinstance(one, Factors) and one.magnitude is None:
            factors[path] = one
            continue
        own = rank if isinstance(rank, int) else rank[path]
        factors[path], missing, whole = _approximated(one, weight_of(weights, path), own)
        residuals[path] = math.sqrt(missing / whole) if whole else 0.0
        lost, total = lost + missing, total + whole
    plain = replace(adapter, factors=factors, outputs={})
    return Plain(plain, residuals, math.sqrt(lost / total) if total else 0.0)


def weight_of(weights: Weights, path: str) -> Tensor:
    """The base model's weight at ``path``.

    Raises:
        AdapterError: the base has none there.
    """
    try:
        return weights[path] if isinstance(weights, Mapping) else weights(path)
    except KeyError:
        raise AdapterError(
            tr("The base model has no weight at {path}.", path=path),
            where=path,
            do=tr("Choose the base model that the adapter was made for."),
        ) from None


def _approximated(one: Factors | OutputChange, weight: Tensor, rank: int) -> tuple[Factors, float, float]:
    """The best factors, ‖ΔW − ΔW_r‖² and ‖ΔW‖²."""
    delta = change(one, weight)
    matrix = delta.flatten(1)
    rank = min(rank, *matrix.shape)
    U, S, Vt = svd.leading(matrix, rank)
    root = S.sqrt()
    up, down = U * root, root[:, None] * Vt
    whole = float(matrix.double().square().sum())
    missing = float((matrix - up @ down).double().square().sum())
    kernel = weight.shape[2:]
    if kernel:
        up, down = up[:, :, None, None], down.reshape(rank, -1, *kernel)
    return Factors(down.contiguous(), up.contiguous(), float(rank)), missing, whole
