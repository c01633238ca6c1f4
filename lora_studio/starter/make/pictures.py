"""Icons as tensors, and the training pictures made of them, on the icons' device.

Nothing here synchronizes with the device, so all of it can be part of a CUDA graph.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .names import BACKGROUNDS

SIDE = 128
"""Pixels along each edge of a training picture."""

COLOURS = torch.tensor([(255, 255, 255), *BACKGROUNDS.values()], dtype=torch.float32) / 255
"""(1 + backgrounds, 3) sRGB in 0..1; row 0 is white."""


def load(icons: Path, limit: int | None = None) -> tuple[list[dict], torch.Tensor]:
    """Index entries, and (N, 4, 160, 160) uint8 RGBA, of the zip that `data.py` wrote (a copy is kept beside it)."""
    with zipfile.ZipFile(icons) as z:
        index = json.loads(z.read("index.json"))
        index = index if limit is None else index[:: max(1, len(index) // limit)]
        cache = icons.with_suffix(".npy")
        if limit is None and cache.exists():
            return index, torch.from_numpy(np.load(cache))
        packed = [z.read(f"{e['style']}/{e['subject']}.webp") for e in index]
    with ThreadPoolExecutor() as pool:
        rgba = np.stack(list(pool.map(lambda b: np.asarray(Image.open(io.BytesIO(b)).convert("RGBA")), packed)))
    rgba = np.ascontiguousarray(rgba.transpose(0, 3, 1, 2))
    if limit is None:
        half = icons.with_suffix(f".{os.getpid()}.npy")
        np.save(half, rgba)
        half.rename(cache)
    return index, torch.from_numpy(rgba)


def layer(
    rgba: torch.Tensor, scale: torch.Tensor, angle: torch.Tensor, shift: torch.Tensor, side: int = SIDE
) -> torch.Tensor:
    """Icons moved: (B, 4, 160, 160) uint8 -> (B, 4, side, side) in 0..1, colour premultiplied by alpha.

    scale: (B,) 1 fills the picture; angle: (B,) radians; shift: (B, 2) in half pictures, right and down.
    """
    x = rgba.float() / 255
    x = torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], 1)
    c, s = torch.cos(angle) / scale, torch.sin(angle) / scale
    dx, dy = shift[:, 0], shift[:, 1]
    theta = torch.stack([torch.stack([c, s, -c * dx - s * dy], 1), torch.stack([-s, c, s * dx - c * dy], 1)], 1)
    grid = F.affine_grid(theta, [len(x), 4, side, side], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)


def over(top: torch.Tensor, under: torch.Tensor) -> torch.Tensor:
    """A premultiplied layer (B, 4, H, W) laid over an opaque picture (B, 3, H, W)."""
    return top[:, :3] + under * (1 - top[:, 3:])


def placed(rgba: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """The denoiser's pictures: one icon a little moved on plain paper -> (B, 3, 128, 128) in -1..1.

    colour: (B, 3) sRGB in 0..1.
    """
    b, dev = len(rgba), rgba.device
    scale = 0.74 + 0.28 * torch.rand(b, device=dev)
    room = (1 - scale).clamp(min=0.03)[:, None]
    shift = (torch.rand(b, 2, device=dev) * 2 - 1) * room
    angle = (torch.rand(b, device=dev) * 2 - 1) * 0.05
    paper = colour[:, :, None, None].expand(b, 3, SIDE, SIDE)
    return over(layer(rgba, scale, angle, shift), paper) * 2 - 1


def plain(rgba: torch.Tensor, colour: tuple[float, float, float] = (1, 1, 1)) -> torch.Tensor:
    """Icons as they are, on one colour: (B, 4, 160, 160) uint8 -> (B, 3, 128, 128) in -1..1."""
    b, dev = len(rgba), rgba.device
    still = torch.zeros(b, device=dev)
    paper = torch.tensor(colour, device=dev, dtype=torch.float32).view(1, 3, 1, 1).expand(b, 3, SIDE, SIDE)
    return over(layer(rgba, still + 0.95, still, torch.zeros(b, 2, device=dev)), paper) * 2 - 1


def choice(b: int, p: float, dev: torch.device) -> torch.Tensor:
    """(B, 1, 1, 1) of 1 with probability p, else 0."""
    return (torch.rand(b, 1, 1, 1, device=dev) < p).float()


def grounds(b: int, dev: torch.device) -> torch.Tensor:
    """Backgrounds of every kind: white, plain, gradients, stripes, checkers, clouds and grain; (B, 3, 128, 128) in
    0..1.
    """
    axis = torch.linspace(-1, 1, SIDE, device=dev)
    y, x = axis.view(1, 1, -1, 1), axis.view(1, 1, 1, -1)
    turn = torch.rand(b, 1, 1, 1, device=dev) * (2 * math.pi)
    u, v = x * torch.cos(turn) + y * torch.sin(turn), y * torch.cos(turn) - x * torch.sin(turn)
    f = torch.exp(torch.rand(b, 1, 1, 1, device=dev) * 3.4 + 0.7)
    wave, cross = torch.sin(u * f), torch.sin(v * f)
    sharp = torch.rand(b, 1, 1, 1, device=dev) * 12 + 1
    stripes, checks = torch.sigmoid(sharp * wave), torch.sigmoid(2 * sharp * wave * cross)
    lines = torch.sigmoid(14 * (torch.maximum(wave, cross) - 0.93))
    clouds = torch.zeros(b, 1, SIDE, SIDE, device=dev)
    for k, w in ((3, 0.5), (8, 0.3), (24, 0.2)):
        clouds = clouds + F.interpolate(torch.rand(b, 1, k, k, device=dev), SIDE, mode="bilinear") * w
    kinds = torch.stack([u * 0.35 + 0.5, stripes, checks, lines.expand(b, 1, SIDE, SIDE), clouds], 0)
    which = torch.randint(0, len(kinds), (b,), device=dev)
    mix = kinds.gather(0, which.view(1, b, 1, 1, 1).expand(1, b, 1, SIDE, SIDE))[0]
    mix = mix * (1 - choice(b, 0.3, dev))
    one, two = torch.rand(2, b, 3, 1, 1, device=dev)
    two = torch.lerp(one, two, torch.rand(b, 1, 1, 1, device=dev) ** 0.7)
    paper = torch.lerp(one, two, mix.clamp(0, 1))
    grain = torch.randn(b, 3, SIDE, SIDE, device=dev) * 0.06 * torch.rand(b, 1, 1, 1, device=dev) * choice(b, 0.15, dev)
    return torch.lerp(paper + grain, torch.ones_like(paper), choice(b, 0.4, dev))


def scattered(
    rgba: torch.Tensor, b: int, smallest: float, largest: float, shift: float, side: int = SIDE
) -> torch.Tensor:
    """B random icons at random sizes, places and turns, as premultiplied layers."""
    dev = rgba.device
    pick = torch.randint(0, len(rgba), (b,), device=dev)
    scale = torch.exp(math.log(smallest) + torch.rand(b, device=dev) * math.log(largest / smallest))
    angle = (torch.rand(b, device=dev) * 2 - 1) * 0.5 * (torch.rand(b, device=dev) < 0.4)
    where = (torch.rand(b, 2, device=dev) * 2 - 1) * torch.maximum(shift * torch.ones_like(scale), scale - 1)[:, None]
    return layer(rgba[pick], scale, angle, where, side)


def _drawn(x: torch.Tensor) -> torch.Tensor:
    """Line drawings: the edges of (B, 3, H, W) in one colour on paper of another."""
    g = F.pad(x, (1, 1, 1, 1), mode="replicate")
    edge = ((g[..., 1:-1, 2:] - g[..., 1:-1, :-2]).abs() + (g[..., 2:, 1:-1] - g[..., :-2, 1:-1]).abs()).amax(
        1, keepdim=True
    )
    ink, paper = torch.rand(2, len(x), 3, 1, 1, device=x.device)
    return torch.lerp(paper, ink, (edge * 1.6).clamp(0, 1))


def _screened(x: torch.Tensor) -> torch.Tensor:
    """Halftone and hatching: dots or lines of one ink, the thicker the darker (B, 3, H, W) is, on plain paper."""
    b, dev = len(x), x.device
    axis = torch.linspace(-1, 1, SIDE, device=dev)
    turn = torch.rand(b, 1, 1, 1, device=dev) * math.pi
    u = axis.view(1, 1, 1, -1) * torch.cos(turn) + axis.view(1, 1, -1, 1) * torch.sin(turn)
    v = axis.view(1, 1, -1, 1) * torch.cos(turn) - axis.view(1, 1, 1, -1) * torch.sin(turn)
    f = torch.rand(b, 1, 1, 1, device=dev) * 60 + 25
    dots = torch.lerp(torch.sin(u * f), torch.sin(u * f) * torch.sin(v * f), choice(b, 0.6, dev))
    ink, paper = torch.rand(2, b, 3, 1, 1, device=dev)
    shade = torch.sigmoid((x.mean(1, keepdim=True) * 2.2 - 1.1 - dots) * 6)
    return torch.lerp(ink, torch.lerp(paper, torch.ones_like(paper), choice(b, 0.5, dev)), shade)


def _coloured(x: torch.Tensor) -> torch.Tensor:
    """Colours shifted: saturation, contrast, brightness, swapped channels, grey and negative, each now and then."""
    b, dev = len(x), x.device
    grey = x.mean(1, keepdim=True)
    x = torch.lerp(grey, x, 1 + (torch.rand(b, 1, 1, 1, device=dev) - 0.6) * choice(b, 0.5, dev))
    x = torch.lerp(x, x.roll(1, 1), choice(b, 0.12, dev))
    x = torch.lerp(x, grey.expand_as(x), choice(b, 0.1, dev))
    x = (x - 0.5) * (1 + (torch.rand(b, 1, 1, 1, device=dev) - 0.6) * choice(b, 0.4, dev)) + 0.5
    x = x + (torch.rand(b, 3, 1, 1, device=dev) - 0.5) * 0.35 * choice(b, 0.3, dev)
    return torch.lerp(x, 1 - x, choice(b, 0.12, dev)).clamp(0, 1)


def varied(rgba: torch.Tensor, b: int) -> torch.Tensor:
    """The autoencoder's pictures: icons in every setting, (B, 3, 128, 128) in -1..1; rgba: all icons."""
    dev = rgba.device
    x = grounds(b, dev)
    for chance, smallest, largest, shift in ((0.3, 0.3, 1.5, 1.0), (0.3, 0.25, 0.9, 0.9), (0.93, 0.55, 1.9, 0.25)):
        x = over(scattered(rgba, b, smallest, largest, shift) * choice(b, chance, dev), x)
    x = torch.lerp(x, _drawn(x), choice(b, 0.14, dev))
    x = torch.lerp(x, _screened(x), choice(b, 0.08, dev))
    coarse = F.interpolate(F.avg_pool2d(x, 4), SIDE, mode="nearest")
    x = torch.lerp(x, coarse, choice(b, 0.04, dev))
    return torch.lerp(x, _coloured(x), choice(b, 0.6, dev)) * 2 - 1
