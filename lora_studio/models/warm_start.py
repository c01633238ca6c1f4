"""Beginning a training from a finished adapter instead of from nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lora_studio.adapters import Adapter, Factors, dora, resize, svd
from lora_studio.errors import AdapterError
from lora_studio.models import inject, modules
from lora_studio.models.base import Base
from lora_studio.models.overlay import require_fit


class Taken(NamedTuple):
    """What a training begins with of a finished adapter."""

    modules: int
    left: list[str]
    """Canonical paths of the modules that change something and are not trained."""
    residual: float
    """‖ΔW − ΔW taken‖ / ‖ΔW‖ over the modules that are trained; 0 where the rank holds all of it."""


@torch.no_grad()
def begin_from(base: Base, adapter: Adapter, rank: int) -> Taken:
    """Gives the fresh adapter under training the change of ``adapter``: exactly if ``rank``, which it trains at, allows
    it, else the nearest. A DoRA stays one where the method trains magnitudes and the rank is as high; otherwise the
    nearest LoRA to its change of this base model is taken.

    Raises:
        AdapterError: it was made for another base model, or changes none of the layers that are trained.
    """
    if base.method is None:
        return Taken(0, [], 0.0)
    require_fit(adapter, modules.adaptable(base.models), base.family.name)
    layers = inject.layers(base)
    held = {path: one for path, one in adapter.factors.items() if path in layers}
    left = [path for path, one in adapter.factors.items() if path not in layers and one.up.count_nonzero()]
    if not held:
        raise AdapterError(
            f"None of the adapter's {len(adapter.factors)} modules is among the layers that this run trains.",
            where="targets",
            do="Choose its layers, or set train_text if it is one of the text encoders.",
        )
    nearest, residual = _nearest(base, held, rank)
    for path, one in nearest.items():
        base.method.begin(layers[path], one)
    return Taken(len(held), left, residual)


def _nearest(base: Base, held: Mapping[str, Factors], rank: int) -> tuple[dict[str, Factors], float]:
    """Factors of at most ``rank``, with a magnitude only where the method trains one; and the residual over all."""
    assert base.method is not None
    weight = partial(inject.weight, base)
    magnitudes = {path for path, one in held.items() if one.magnitude is not None}
    kept = {path for path in magnitudes if base.method.trains_magnitudes and held[path].rank <= rank}
    plain = dora.as_lora(Adapter({path: held[path] for path in held if path in magnitudes - kept}), weight, rank)
    small = resize.to_rank(Adapter({path: held[path] for path in held if path not in magnitudes}), rank)
    residuals = plain.residuals | small.residuals
    if not any(residuals.values()):
        residual = 0.0
    else:
        sizes = {path: _size(one, weight(path) if path in magnitudes else None) for path, one in held.items()}
        lost = math.hypot(*(residuals.get(path, 0.0) * size for path, size in sizes.items()))
        residual = lost / math.hypot(*sizes.values())
    return {**plain.adapter.factors, **small.adapter.factors, **{path: held[path] for path in kept}}, residual


def _size(factors: Factors, weight: Tensor | None) -> float:
    """‖ΔW‖ (Frobenius), with the base model's ``weight`` for a DoRA."""
    if weight is not None:
        return float(dora.change(factors, weight.reshape(factors.shape)).norm())
    B, A = factors.matrices()
    return math.sqrt(max(0.0, float(svd.inner(B, A, B, A))))
