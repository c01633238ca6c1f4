"""A picture that overflowed is an error, and never a black image."""

from __future__ import annotations

import torch
from torch import Tensor

from lora_studio.errors import AdapterError, ModelError
from lora_studio.language import tr
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
    what = f"The picture overflowed: it holds NaN or infinity after denoising {base.name} in {precision}"
    wider = " or compute in float32 or bfloat16" if base.dtype == torch.float16 else ""
    if named := _adapters(base):
        raise AdapterError(
            tr("{what} with {listed}.", what=what, listed=", ".join(named)),
            where="weight",
            do=tr("Lower the weights{value}.", value=wider and f",{wider}"),
        )
    do = f"Choose another copy of the base model{wider and f',{wider}'}."
    raise ModelError(f"{what}.", where=base.path, do=do)


def _trains(base: Base) -> bool:
    return any(not layer.module.disable_adapters for layer in inject.layers(base).values())


def _adapters(base: Base) -> list[str]:
    """What changes the base model, in words."""
    named = ["the adapter under training"] if _trains(base) else []
    if base.loaded is not None and base.loaded.enabled:
        for index, adapter in enumerate(base.loaded.adapters):
            title = adapter.file or adapter.metadata.get("modelspec.title") or "an adapter"
            weights = sorted({row[index] for row in base.loaded.weights})
            named.append(f"{title[:80]} at {' and '.join(f'{weight:g}' for weight in weights)}")
    return named
