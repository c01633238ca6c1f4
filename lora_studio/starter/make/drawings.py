"""Drawings in two colours for the autoencoder: line art, black shapes with white details, halftone, hatching and grids.

They are made of the training icons, or of nothing but random shapes. All maps are drawn at twice the size and halved,
so that edges are as smooth as a renderer's. As in `pictures`, nothing here synchronizes with the device.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .pictures import SIDE, choice, scattered

BIG = 2 * SIDE
"""Pixels along each edge of a map before it is halved."""


def _uniform(b: int, low: float, high: float, dev: torch.device) -> torch.Tensor:
    """(B, 1, 1, 1) between two numbers."""
    return low + (high - low) * torch.rand(b, 1, 1, 1, device=dev)


def _between(b: int, low: float, high: float, dev: torch.device) -> torch.Tensor:
    """(B, 1, 1, 1) between two positive numbers, even in their logarithm."""
    return torch.exp(_uniform(b, math.log(low), math.log(high), dev))


def _turned(b: int, dev: torch.device, right_angles: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates (B, 1, 256, 256) in small pixels from the middle, turned; a share of them not turned at all."""
    axis = torch.linspace(-SIDE / 2, SIDE / 2, BIG, device=dev)
    y, x = axis.view(1, 1, -1, 1), axis.view(1, 1, 1, -1)
    turn = _uniform(b, 0, math.pi, dev) * (1 - choice(b, right_angles, dev))
    c, s = torch.cos(turn), torch.sin(turn)
    return x * c + y * s, y * c - x * s


def shapes(b: int, dev: torch.device, layers: int = 18) -> torch.Tensor:
    """Ink (B, 1, 256, 256) in 0..1: strokes, discs, rings, bars and boxes, each laid over the last in ink or paper."""
    ink = torch.zeros(b, 1, BIG, BIG, device=dev)
    size = _between(b, 0.4, 1.5, dev)
    for _ in range(layers):
        u, v = _turned(b, dev, right_angles=0.5)
        u, v = u - _uniform(b, -60, 60, dev), v - _uniform(b, -60, 60, dev)
        wide, high = (_between(b, 1.5, 45, dev) * size * choice(b, 0.6, dev) for _ in range(2))
        du, dv = u.abs() - wide, v.abs() - high
        far = torch.sqrt(du.clamp(min=0).square() + dv.clamp(min=0).square())
        far = far + torch.maximum(du, dv).clamp(max=0) - _between(b, 0.5, 20, dev) * size
        ring = far.abs() - _between(b, 0.5, 4, dev)
        far = torch.lerp(far, ring, choice(b, 0.55, dev))
        cover = (0.5 - 2 * far).clamp(0, 1)
        ink = torch.lerp(ink, choice(b, 0.55, dev).expand_as(ink), cover)
    return ink


def screen(b: int, dev: torch.device) -> torch.Tensor:
    """Thresholds (B, 1, 256, 256) in 0..1 of lines, dots, crossed lines and steps, with periods of 3 to 20 pixels."""
    u, v = _turned(b, dev, right_angles=0.4)
    period = _between(b, 3, 20, dev)
    wave, cross = ((torch.sin(axis * (2 * math.pi) / period) + 1) / 2 for axis in (u, v))
    kinds = torch.stack([wave, (wave + cross) / 2, torch.maximum(wave, cross), torch.minimum(wave, cross)])
    which = torch.randint(0, len(kinds), (1, b, 1, 1, 1), device=dev).expand(1, b, 1, BIG, BIG)
    return kinds.gather(0, which)[0]


def _blurred(x: torch.Tensor, times: int) -> torch.Tensor:
    for _ in range(times):
        x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return x


def _edges(x: torch.Tensor) -> torch.Tensor:
    """How strong the edges of (B, C, H, W) are: (B, 1, H, W)."""
    g = F.pad(x, (1, 1, 1, 1), mode="replicate")
    right, down = g[..., 1:-1, 2:] - g[..., 1:-1, :-2], g[..., 2:, 1:-1] - g[..., :-2, 1:-1]
    return (right.square() + down.square()).sum(1, keepdim=True).sqrt()


def outlines(x: torch.Tensor) -> torch.Tensor:
    """Outlines (B, 1, 256, 256) in 0..1 of coloured pictures, one to six pixels thick."""
    b, dev = len(x), x.device
    thin = (_edges(x) * 4 - 0.4).clamp(0, 1)
    found, line = [], thin
    for _ in range(5):
        line = F.max_pool2d(_blurred(line, 1), 3, 1, 1)
        found.append(((_blurred(line, 1) - 0.35) * 3).clamp(0, 1))
    which = torch.randint(0, len(found), (1, b, 1, 1, 1), device=dev).expand(1, b, 1, BIG, BIG)
    return torch.stack(found).gather(0, which)[0]


def inked(rgba: torch.Tensor, b: int) -> torch.Tensor:
    """Ink (B, 1, 256, 256) in 0..1 that draws random icons: outlines, dark parts filled or screened, and what crosses
    them in paper's colour.
    """
    dev = rgba.device
    x = torch.ones(b, 3, BIG, BIG, device=dev)
    for chance, smallest, largest, shift in ((0.5, 0.3, 1.2, 0.9), (0.95, 0.5, 1.6, 0.3)):
        icon = scattered(rgba, b, smallest, largest, shift, BIG) * choice(b, chance, dev)
        x = icon[:, :3] + x * (1 - icon[:, 3:])
    grey = x.mean(1, keepdim=True)
    dark = ((_uniform(b, 0.15, 0.8, dev) - _blurred(grey, 1)) * 12 + 0.5).clamp(0, 1) * choice(b, 0.75, dev)
    toned = ((screen(b, dev) - grey * _uniform(b, 0.9, 1.3, dev)) * 4 + 0.5).clamp(0, 1)
    dark = torch.lerp(dark, toned, choice(b, 0.18, dev))
    lines = outlines(x) * torch.maximum(choice(b, 0.8, dev), 1 - choice(b, 0.75, dev))
    return dark + lines - 2 * dark * lines


def two_colours(ink: torch.Tensor) -> torch.Tensor:
    """Ink maps (B, 1, H, W) as pictures (B, 3, H, W) in 0..1: half of them black on white or white on black, the others
    in two random colours; some on paper with a faint grid.
    """
    b, dev = len(ink), ink.device
    pair = torch.rand(2, b, 3, 1, 1, device=dev)
    nearly = 0.08 * torch.rand(b, 3, 1, 1, device=dev) * choice(b, 0.5, dev)
    black = torch.lerp(pair[0], nearly, choice(b, 0.6, dev))
    white = torch.lerp(pair[1], 1 - nearly, choice(b, 0.7, dev))
    turned = choice(b, 0.4, dev)
    one, two = torch.lerp(black, white, turned), torch.lerp(white, black, turned)
    faint = F.avg_pool2d(1 - (4 * (1 - screen(b, dev))).clamp(0, 1), 2)
    paper = torch.lerp(two, one, faint * _uniform(b, 0.1, 0.4, dev) * choice(b, 0.2, dev))
    return torch.lerp(paper, one, ink)


def drawn(rgba: torch.Tensor, b: int) -> torch.Tensor:
    """Two-coloured drawings, (B, 3, 128, 128) in -1..1: three quarters of icons, a quarter of shapes."""
    ink = torch.cat([inked(rgba, b - b // 4), shapes(b // 4, rgba.device)])
    dense = choice(b, 0.12, rgba.device)
    tiled = F.avg_pool2d(ink, 2).repeat(1, 1, 2, 2)
    ink = F.avg_pool2d(torch.lerp(ink, tiled, dense), 2)
    return two_colours(ink) * 2 - 1
