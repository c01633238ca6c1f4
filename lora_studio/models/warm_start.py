"""Beginning a training from a finished adapter instead of from nothing."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lora_studio.adapters import Adapter, Factors, dora, resize, svd
from lora_studio.adapters.kinds import EMBEDDING
from lora_studio.adapters.output_change import OutputChange
from lora_studio.errors import AdapterError
from lora_studio.families.family import Family
from lora_studio.language import both, tr
from lora_studio.methods.method import Layer, Method
from lora_studio.models import inject, modules
from lora_studio.models.base import Base
from lora_studio.models.learned_words import spoken
from lora_studio.models.overlay import require_fit


class Taken(NamedTuple):
    """What a training begins with of a finished adapter."""

    modules: int
    left: list[str]
    """Canonical paths of the modules that change something and are not trained."""
    residual: float
    """‖ΔW − ΔW taken‖ / ‖ΔW‖ over the modules that are trained; 0 where the rank holds all of it."""
    unheard: tuple[str, ...] = ()
    """The words that the adapter has learned, where none is trained."""
    cut: int = 0
    """How many vectors of its word are left out, since fewer are trained."""


@torch.no_grad()
def begin_from(base: Base, adapter: Adapter, rank: int | Mapping[str, int]) -> Taken:
    """Gives the fresh adapter under training the change of ``adapter``: exactly if ``rank``, which it trains at (the
    same everywhere, or each path's own), allows it, else the nearest. A DoRA stays one where the method trains
    magnitudes and the rank is as high; otherwise the nearest LoRA to its change of this base model is taken. The word
    under training starts with that of ``adapter``.

    Raises:
        AdapterError: it was made for another base model, or changes none of the layers that are trained.
    """
    if base.method is None:
        return Taken(0, [], 0.0)
    layers = inject.layers(base)
    held = require_held(adapter, base.family, base.models, base.method, layers, layers, base.words.learning)
    heard = base.words.begin(adapter.embeddings)
    left = [path for path, one in adapter.changes.items() if path not in layers and one.acts]
    cut = max(0, heard.tokens - base.words.trained) if heard else 0
    if not held:
        return Taken(0, left, 0.0, cut=cut)
    others = {path: one for path, one in held.items() if not base.method.fits(layers[path], one)}
    for path in held.keys() - others.keys():
        base.method.take(layers[path], held[path])
    nearest, residual = _nearest(base, others, rank) if others else ({}, 0.0)
    for path, one in nearest.items():
        base.method.begin(layers[path], one)
    return Taken(len(held), left, residual, () if heard else tuple(adapter.embeddings), cut)


def require_held(
    adapter: Adapter,
    family: Family,
    models: Mapping[str, nn.Module],
    method: Method,
    paths: Collection[str],
    layers: Mapping[str, Layer],
    word: str,
) -> dict[str, Factors | OutputChange]:
    """What ``adapter`` changes of the layers under training, by canonical path. Asks the models for no weight.

    Args:
        models: by the first word of a canonical path.
        paths: canonical paths of the layers under training by ``method``.
        layers: they themselves, where the method has an ``own_start``.
        word: the word under training; empty if there is none.

    Raises:
        AdapterError: as ``begin_from``.
    """
    require_fit(adapter, modules.adaptable(models), family.name)
    held = {path: one for path, one in adapter.changes.items() if path in paths}
    if not held and not (word and spoken(word, adapter.embeddings)):
        raise _nothing_taken(adapter, trained=bool(paths))
    others = [path for path, one in held.items() if method.own_start and not method.fits(layers[path], one)]
    if others:
        raise AdapterError(
            tr(
                "{reason} Of the adapter's {held} modules {others} are of another kind or size.",
                reason=method.own_start,
                held=len(held),
                others=len(others),
            ),
            where="method",
            do=tr("Choose the settings that it was trained with, or method=lora."),
        )
    return held


def _nothing_taken(adapter: Adapter, trained: bool) -> AdapterError:
    """Why a run can begin with nothing of ``adapter``.

    Args:
        trained: whether the run trains layers at all.
    """
    if adapter.kind is EMBEDDING:
        return AdapterError(
            tr(
                "The adapter holds the learned word {words} alone, and this run learns none.",
                words=both(adapter.embeddings),
            ),
            where="learned_tokens",
            do=tr("Set learned_tokens and trigger, or method to textual-inversion."),
        )
    if not trained:
        return AdapterError(
            tr("The adapter has learned no word, and this run trains nothing else."),
            where="method",
            do=tr("Choose a method that trains layers, such as lora."),
        )
    return AdapterError(
        tr(
            "None of the adapter's {changes} modules is among the layers that this run trains.",
            changes=len(adapter.changes),
        ),
        where="targets",
        do=tr("Choose its layers, or set train_text if it is one of the text encoders."),
    )


def _nearest(
    base: Base, held: Mapping[str, Factors | OutputChange], rank: int | Mapping[str, int]
) -> tuple[dict[str, Factors], float]:
    """Factors of at most ``rank``, with a magnitude only where the method trains one; and the residual over all."""
    assert base.method is not None
    weight = partial(inject.weight, base)
    ranks = dict.fromkeys(held, rank) if isinstance(rank, int) else rank
    factors = {path: one for path, one in held.items() if isinstance(one, Factors)}
    outputs = {path: one for path, one in held.items() if not isinstance(one, Factors)}
    magnitudes = {path for path, one in factors.items() if one.magnitude is not None}
    kept = {path for path in magnitudes if base.method.trains_magnitudes and factors[path].rank <= ranks[path]}
    scaled = {path: factors[path] for path in factors if path in magnitudes - kept}
    plain = dora.as_lora(Adapter(scaled, outputs=outputs), weight, ranks)
    small = resize.to_rank(Adapter({path: factors[path] for path in factors if path not in magnitudes}), ranks)
    residuals = plain.residuals | small.residuals
    if not any(residuals.values()):
        residual = 0.0
    else:
        sizes = {path: _size(one, weight(path) if dora.depends(one) else None) for path, one in held.items()}
        lost = math.hypot(*(residuals.get(path, 0.0) * size for path, size in sizes.items()))
        residual = lost / math.hypot(*sizes.values())
    return {**plain.adapter.factors, **small.adapter.factors, **{path: factors[path] for path in kept}}, residual


def _size(one: Factors | OutputChange, weight: Tensor | None) -> float:
    """‖ΔW‖ (Frobenius), with the base model's ``weight`` where it depends on that."""
    if weight is not None:
        return float(dora.change(one, weight if 0 in one.shape else weight.reshape(one.shape)).norm())
    assert isinstance(one, Factors), "what is no pair of factors depends on the weight"
    B, A = one.matrices()
    return math.sqrt(max(0.0, float(svd.inner(B, A, B, A))))
