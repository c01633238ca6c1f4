"""Small adapters of the starter with random factors, which change its pictures and take no time to make."""

from __future__ import annotations

import torch

from lora_studio.adapters import Adapter, Factors
from lora_studio.models import Base, modules

RANK = 4


def small_adapter(base: Base, seed: int) -> Adapter:
    """A twentieth of each attention weight's size: seen in the picture, and not wild."""
    source, factors = torch.Generator().manual_seed(seed), {}
    for path, module in modules.adaptable(base.models).items():
        if path.startswith("unet.") and ".attn" in path:
            out, into = module.weight.shape[:2]
            up = (
                torch.randn(out, RANK, generator=source)
                * 0.1
                * module.weight.detach().norm()
                / (out * into * RANK) ** 0.5
            )
            factors[path] = Factors(torch.randn(RANK, into, generator=source), up, float(RANK))
    return Adapter(factors)
