"""A picture while it forms: small and rough, from its latents by a linear map in place of the VAE's decoder."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lora_studio.models import Base
from lora_studio.sampling.generate import to_images

_PICTURES, _SIDE, _PATCHES = 16, 16, 4
"""Made-up pictures that the map is fitted to, the side of their latents, and how many colours each has along a side."""
_MAPS: WeakKeyDictionary[Base, Tensor] = WeakKeyDictionary()


@torch.no_grad()
def rough(base: Base, latents: Tensor) -> list[Image.Image]:
    """RGB images of scaled latents (B, C, h, w), a pixel for each of theirs."""
    if base not in _MAPS:
        _MAPS[base] = linear_map(base)
    return to_images(colours(latents.float().cpu(), _MAPS[base]).clamp(0, 1))


def colours(latents: Tensor, fitted: Tensor) -> Tensor:
    """Pixels (B, 3, h, w), about [0, 1], of scaled latents (B, C, h, w) by a map (C + 1, 3) of ``linear_map``."""
    return torch.einsum("bchw,cd->bdhw", latents, fitted[:-1]) + fitted[-1][:, None, None]


@torch.no_grad()
def linear_map(base: Base) -> Tensor:
    """(C + 1, 3) float32 on the CPU: the colours that a latent pixel's channels add, and the colour of zero. The least
    squares over made-up pictures of flat random colours: their latents, and their pixels averaged to that size.
    """
    source, side = torch.Generator().manual_seed(0), _SIDE * base.scale
    pixels = F.interpolate(torch.rand(_PICTURES, 3, _PATCHES, _PATCHES, generator=source), (side, side))
    latents = base.encode_images(pixels * 2 - 1)[0].cpu()
    wanted = F.avg_pool2d(pixels, base.scale)
    rows, colours_of = (tensor.permute(0, 2, 3, 1).flatten(0, 2) for tensor in (latents, wanted))
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    return torch.linalg.lstsq(rows, colours_of).solution
