"""An icon's main colour, and the icon in another colour. (B, 4, 160, 160) uint8 RGBA as everywhere in this folder.

Hue is the angle of (a, b) = (R - (G + B) / 2, (G - B) sqrt(3) / 2); its length is the chroma.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .scenes import COLOURS, MEASURED

TARGETS = torch.tensor([*COLOURS.values()], dtype=torch.float32) / 255
"""(colour words, 3) sRGB in 0..1, in the order of `COLOURS`."""

ENOUGH = 0.45
"""Share of an icon that its main colour must cover for the icon to be painted in another."""


def plane(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(..., 2) hue vector and (...) lightness of colours (..., 3) in 0..1."""
    r, g, b = x.unbind(-1)
    hue = torch.stack([r - (g + b) / 2, (g - b) * (math.sqrt(3) / 2)], -1)
    return hue, 0.3 * r + 0.59 * g + 0.11 * b


def main_colour(rgba: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of the pixels of an icon's most frequent hue, or of its greys where they prevail: (B, 3) in 0..1; and
    the share (B,) of the icon that they cover.
    """
    x = F.avg_pool2d(rgba.float() / 255, 4).flatten(2).transpose(1, 2)
    solid = (x[..., 3] > 0.9).float()
    hue, light = plane(x[..., :3])
    chroma = hue.norm(dim=-1)
    turn = torch.arange(24, device=x.device) * (2 * math.pi / 24)
    axes = torch.stack([turn.cos(), turn.sin()])
    likeness = hue @ axes / chroma.clamp(min=1e-4)[..., None]
    votes = ((likeness > 0.9) * (solid * chroma * (chroma > 0.15))[..., None]).sum(1)
    best = votes.argmax(1)
    alike = likeness.gather(2, best.view(-1, 1, 1).expand(-1, likeness.shape[1], 1))[..., 0]
    vivid = solid * (chroma > 0.15) * (alike > 0.7)
    grey = solid * (chroma <= 0.15) * (light > 0.2)
    member = torch.where((grey.sum(1) > 1.5 * vivid.sum(1))[:, None], grey, vivid)
    area = member.sum(1)
    mean = (x[..., :3] * member[..., None]).sum(1) / area.clamp(min=1)[:, None]
    return mean, area / solid.sum(1).clamp(min=1)


def painted(rgba: torch.Tensor, main: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Icons with their main colour (B, 3) turned into another (B, 3), both in 0..1; uint8 again. Lighter and darker
    shades stay so; black outlines and other hues are kept.
    """
    x = rgba[:, :3].permute(0, 2, 3, 1).float() / 255
    hue, light = plane(x)
    main_hue, main_light = plane(main.view(-1, 1, 1, 3))
    chroma, main_chroma = hue.norm(dim=-1), main_hue.norm(dim=-1)
    alike = (hue * main_hue).sum(-1) / (chroma * main_chroma).clamp(min=1e-4)
    vivid = ((alike - 0.55) / 0.25).clamp(0, 1) * ((chroma - 0.05) / 0.1).clamp(0, 1)
    grey = ((0.24 - chroma) / 0.12).clamp(0, 1) * ((light - 0.14) / 0.14).clamp(0, 1)
    mask = torch.where(main_chroma > 0.15, vivid, grey)[..., None]
    goal = target.view(-1, 1, 1, 3)
    darker = goal * (light / main_light.clamp(min=0.05))[..., None].clamp(max=1)
    rest = ((light - main_light) / (1 - main_light).clamp(min=0.05)).clamp(0, 1)[..., None]
    shade = torch.where(
        light[..., None] < main_light[..., None], darker, torch.lerp(goal, torch.ones_like(goal), rest * 0.85)
    )
    out = (torch.lerp(x, shade, mask) * 255).round().to(torch.uint8).permute(0, 3, 1, 2)
    return torch.cat([out, rgba[:, 3:]], 1)


def colour_word(x: torch.Tensor) -> torch.Tensor:
    """Number in `MEASURED` of the colour that most of a picture's subject has: (N, 3, 128, 128) in -1..1 -> (N,).

    The subject is what differs from the picture's corners. Each vivid pixel votes for the word nearest to it, hue
    counting twice as much as lightness and chroma.
    """
    pixels = (F.avg_pool2d(x, 4) / 2 + 0.5).clamp(0, 1).flatten(2).transpose(1, 2)
    corner = ((x[:, :, :4, :4] + x[:, :, :4, -4:]).mean((2, 3)) / 4 + 0.5)[:, None]
    hue, light = plane(pixels)
    goal, goal_light = plane(TARGETS[: len(MEASURED)].to(x.device))
    chroma, goal_chroma = hue.norm(dim=-1, keepdim=True), goal.norm(dim=-1)
    alike = hue @ goal.T / (chroma * goal_chroma).clamp(min=1e-4)
    far = 4 * (1 - alike) + (light[..., None] - goal_light).square() * 4 + (chroma - goal_chroma).square() * 2
    vote = (pixels - corner).norm(dim=-1).gt(0.2) * chroma[..., 0].gt(0.1)
    return (F.one_hot(far.argmin(-1), len(MEASURED)) * vote[..., None]).sum(1).argmax(1)
