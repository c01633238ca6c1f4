"""Beginning a training from a finished adapter instead of from nothing."""

from __future__ import annotations

import torch
from peft.tuners.lora import LoraLayer

from lora_studio.adapters import Adapter, Factors, resize
from lora_studio.models import inject
from lora_studio.models.base import Base


@torch.no_grad()
def begin_from(base: Base, adapter: Adapter) -> int:
    """Gives the fresh adapter under training the change of ``adapter``, exactly where its rank is as high, else as near
    as its rank comes.

    The scale is shared out evenly between both factors. Rows of A that the given adapter does not fill stay as they
    were drawn, their columns of B zero, so that they can still learn. A DoRA's magnitude becomes ‖W + ΔW‖, which makes
    its first answer the given one too.

    Returns:
        How many of its modules have a place.

    Raises:
        AdapterError: it is a DoRA, whose change is not in its factors alone.
    """
    layers = {path: layer for path, layer in inject.layers(base).items() if path in adapter.factors}
    for path, layer in layers.items():
        one = Adapter({path: adapter.factors[path]})
        _fill(layer, resize.to_rank(one, layer.r[inject.NAME]).adapter.factors[path])
        if inject.NAME in layer.lora_magnitude_vector:
            magnitude = layer.lora_magnitude_vector[inject.NAME].weight
            whole = inject.weight(base, path) + adapter.factors[path].delta().float().reshape(
                inject.weight(base, path).shape
            )
            magnitude.copy_(whole.flatten(1).norm(dim=1).reshape(magnitude.shape))
    return len(layers)


def _fill(layer: LoraLayer, given: Factors) -> None:
    down, up = layer.lora_A[inject.NAME].weight, layer.lora_B[inject.NAME].weight
    ratio = given.scale / layer.scaling[inject.NAME]
    up.zero_()
    down[: given.rank] = (abs(ratio) ** 0.5 * given.down.float()).reshape(given.rank, *down.shape[1:]).to(down.device)
    up[:, : given.rank] = (
        (abs(ratio) ** 0.5 * (1 if ratio > 0 else -1) * given.up.float())
        .reshape(-1, given.rank, *up.shape[2:])
        .to(up.device)
    )
