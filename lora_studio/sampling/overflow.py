"""A picture that overflowed is an error, and never a black image."""

from __future__ import annotations

import torch
from torch import Tensor

from lora_studio.errors import AdapterError, ModelError
from lora_studio.language import both, few, number, tr
from lora_studio.models import Base, inject


def require_finite(base: Base, values: Tensor) -> None:
    """Refuses latents or pixels with NaN or infinity.

    Raises:
        AdapterError: there are such values, and adapters are on the base model; they are named with their weights.
        ModelError: there are such values without any adapter.
    """
    if torch.isfinite(values).all():
        return
    precision = str(base.dtype).removeprefix("torch.")
    narrow = base.dtype == torch.float16
    if named := _adapters(base):
        raise AdapterError(
            tr(
                "The picture overflowed: it holds NaN or infinity after denoising {base} in {precision} with "
                "{adapters}.",
                base=base.name,
                precision=precision,
                adapters=few(named, len(named)),
            ),
            where="weight",
            do=tr("Lower the weights, or compute in float32 or bfloat16.") if narrow else tr("Lower the weights."),
        )
    raise ModelError(
        tr(
            "The picture overflowed: it holds NaN or infinity after denoising {base} in {precision}.",
            base=base.name,
            precision=precision,
        ),
        where=base.path,
        do=tr("Choose another copy of the base model, or compute in float32 or bfloat16.")
        if narrow
        else tr("Choose another copy of the base model."),
    )


def _trains(base: Base) -> bool:
    return any(not layer.module.disable_adapters for layer in inject.layers(base).values())


def _adapters(base: Base) -> list[str]:
    """What changes the base model, in words."""
    named = [tr("the adapter under training")] if _trains(base) else []
    if base.loaded is not None and base.loaded.enabled:
        for index, adapter in enumerate(base.loaded.adapters):
            title = adapter.file or adapter.metadata.get("modelspec.title") or tr("an adapter")
            weights = sorted({row[index] for row in base.loaded.weights})
            at = both(number(weight, "g") for weight in weights)
            named.append(tr("{adapter} at {weights}", adapter=title[:80], weights=at))
    return named
