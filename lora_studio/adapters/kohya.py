"""kohya's dialect, for ComfyUI, A1111 and Forge: ``<stem>.lora_down.weight``, ``.lora_up.weight``, ``.alpha``; of an
output change, and of factors that have parts, ``<stem>.<role>``, as LyCORIS writes them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lora_studio.adapters import keys, stored
from lora_studio.adapters.adapter import Adapter, Factors

Modules = Mapping[str, Mapping[str, Tensor]]
Kernels = Mapping[str, tuple[int, ...]]
"""As ``detect.kernels`` gives them."""


def decode(modules: Modules, kernels: Kernels) -> dict[str, Factors]:
    """Factors from a file's tensors by path and role; without an alpha the scale is 1, as in ComfyUI and Forge."""
    return {path: stored.factors(module, path, kernel=kernels.get(path)) for path, module in modules.items()}


def for_every_reader(adapter: Adapter) -> Adapter:
    """The same change in the form that all readers of a kohya file understand: two factors, one alpha (see
    ``with_one_alpha``), and in each text encoder an ``out_proj``, by which diffusers' converter recognizes it. Where
    none is trained, one of zeros is added.
    """
    adapter = adapter.in_factors().with_one_alpha()
    factors = dict(adapter.factors)
    for path, one in adapter.factors.items():
        component, _, rest = path.partition(".")
        added = f"{component}.text_model.encoder.layers.0.self_attn.out_proj"
        if not component.startswith("text_encoder") or "mlp." in rest or _recognized(component, factors):
            continue
        width, rank = one.shape[1], one.rank
        zeros = one.up.new_zeros
        factors[added] = Factors(zeros(rank, width), zeros(width, rank), one.alpha)
    return replace(adapter, factors=factors)


def _recognized(component: str, paths: Collection[str]) -> bool:
    return any(path.startswith(f"{component}.") and path.endswith("out_proj") for path in paths)


def encode(adapter: Adapter) -> dict[str, Tensor]:
    """The file's tensors; of factors with parts, those. ``alpha`` is a float32 scalar whatever the weights are, so that
    rsLoRA's alpha·√r stays exact.
    """
    tensors: dict[str, Tensor] = {}
    for path, factors in adapter.factors.items():
        stem = keys.to_kohya(path, adapter.family)
        if factors.parts:
            tensors.update({f"{stem}.{role}": tensor for role, tensor in factors.parts.tensors.items()})
            continue
        tensors[f"{stem}.lora_down.weight"] = factors.down
        tensors[f"{stem}.lora_up.weight"] = factors.up
        tensors[f"{stem}.alpha"] = torch.tensor(factors.alpha, dtype=torch.float32)
        if factors.magnitude is not None:
            tensors[f"{stem}.dora_scale"] = factors.magnitude.reshape(-1, *(1,) * (factors.down.dim() - 1))
    for path, change in adapter.outputs.items():
        stem = keys.to_kohya(path, adapter.family)
        tensors.update({f"{stem}.{role}": tensor for role, tensor in change.tensors().items()})
    return tensors
