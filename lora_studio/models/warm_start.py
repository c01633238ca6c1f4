"""Beginning a training from a finished adapter instead of from nothing."""

from __future__ import annotations

import torch

from lora_studio.adapters import Adapter
from lora_studio.models import inject
from lora_studio.models.base import Base


@torch.no_grad()
def begin_from(base: Base, adapter: Adapter) -> int:
    """Gives the fresh adapter under training the change of ``adapter``: exactly if its rank is as high, else the
    nearest that its rank allows.

    Returns:
        How many of its modules have a place.

    Raises:
        AdapterError: it is a DoRA, whose change is not in its factors alone.
    """
    if base.method is None:
        return 0
    layers = {path: layer for path, layer in inject.layers(base).items() if path in adapter.factors}
    for path, layer in layers.items():
        base.method.begin(layer, adapter.factors[path])
    return len(layers)
