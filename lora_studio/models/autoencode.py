"""Pictures to latents and back in little memory: a whole batch, or picture by picture, or in tiles, as much at once as
fits.

A batch in pieces gives the same result. Tiles do not quite: each has statistics of its own, and their seams are blended
over a quarter of a tile (diffusers' ``AutoencoderKL``), so they come last, or where they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import cast

import torch
from diffusers.models import AutoencoderKL
from torch import Tensor, nn

TILE = 512
"""Side of a tile in pixels; smaller pictures are never cut."""
SMALL = 256
"""Side of the tiles where even those do not fit."""


MakeRoom = Callable[[], bool]
"""Frees memory that holds what can be made again; returns whether there was any."""


def nothing_to_free() -> bool:
    """The ``MakeRoom`` of who keeps nothing."""
    return False


def encode(
    vae: AutoencoderKL, pixels: Tensor, tiled: bool = False, make_room: MakeRoom = nothing_to_free
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the posterior of ``pixels`` (B, 3, H, W) float32 in [-1, 1]: each (B, 4, H/8, W/8) float32,
    unscaled, on the VAE's device.

    Args:
        make_room: called before tiles are the last resort.
    """

    def one(part: Tensor) -> Tensor:
        posterior = vae.encode(part).latent_dist
        return torch.stack([posterior.mean, posterior.std], dim=1)

    both = _fitting(vae, one, pixels, tiled, make_room)
    return both[:, 0], both[:, 1]


def decode(vae: AutoencoderKL, latents: Tensor, tiled: bool = False, make_room: MakeRoom = nothing_to_free) -> Tensor:
    """Pixels (B, 3, H, W) float32, about [-1, 1], of unscaled latents (B, 4, h, w); computed in the decoder's format.

    Args:
        make_room: as for ``encode``.
    """
    dtype = next(cast(nn.Module, vae.decoder).parameters()).dtype
    return _fitting(vae, lambda part: vae.decode(part.to(dtype)).sample.float(), latents, tiled, make_room)


def narrow_decoder(vae: AutoencoderKL, dtype: torch.dtype) -> None:
    """Has ``vae`` decode in ``dtype``, in half of the memory and a fraction of the time of float32; it encodes in
    float32 as before.
    """
    for part in (vae.post_quant_conv, vae.decoder):
        if part is not None:
            cast(nn.Module, part).to(dtype)


def _fitting(
    vae: AutoencoderKL, work: Callable[[Tensor], Tensor], batch: Tensor, tiled: bool, make_room: MakeRoom
) -> Tensor:
    """``work`` on the batch in float32, outside autocast: at once, or else piece by piece, or else in tiles."""
    device = next(vae.parameters()).device
    batch = batch.to(device, torch.float32)

    def pieces() -> Tensor:
        return torch.cat([work(one) for one in batch.split(1)])

    def pieces_with_room() -> Tensor:
        if not make_room():
            raise torch.OutOfMemoryError
        return pieces()

    with torch.autocast(device.type, enabled=False):
        ways = [
            lambda side=side: torch.cat([_tiled(vae, work, one, side) for one in batch.split(1)])
            for side in (TILE, SMALL)
        ]
        if not tiled:
            ways = [lambda: work(batch), *([pieces] if len(batch) > 1 else []), pieces_with_room, *ways]
        for way in ways[:-1]:
            with suppress(torch.OutOfMemoryError):
                return way()
            if device.type == "cuda":  # out here, where the failed attempt's tensors are gone
                torch.cuda.empty_cache()
        return ways[-1]()


def _tiled(vae: AutoencoderKL, work: Callable[[Tensor], Tensor], one: Tensor, side: int) -> Tensor:
    with _tiles(vae, side):
        return work(one)


@contextmanager
def _tiles(vae: AutoencoderKL, side: int) -> Generator[None]:
    before = vae.tile_sample_min_size, vae.tile_latent_min_size
    vae.enable_tiling()
    vae.tile_sample_min_size, vae.tile_latent_min_size = side, side // 2 ** (len(vae.config["block_out_channels"]) - 1)
    try:
        yield
    finally:
        vae.disable_tiling()
        vae.tile_sample_min_size, vae.tile_latent_min_size = before
