"""Scenes as pictures, painted on the icons' device."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from . import colours
from .names import BACKGROUNDS
from .pictures import SIDE, layer, over
from .scenes import COLOURS, GROUNDS, IconScene

Paper = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], float, float, float, float]
"""Colours at the top, at the bottom and of the ground, horizon, darkness of its edge, direction of the gradient."""


def _hue(rgb: Sequence[float], draw: random.Random, spread: float) -> tuple[float, ...]:
    """A colour of 0 to 255 as 0..1, moved a little."""
    return tuple(min(1.0, max(0.0, c / 255 + draw.uniform(-spread, spread))) for c in rgb)


def paper(scene: IconScene, draw: random.Random) -> Paper:
    """What is behind the icons of a scene."""
    if scene.ground:
        (top, bottom), ground, line = GROUNDS[scene.ground]
        top, bottom = _hue(top, draw, 0.03), _hue(bottom, draw, 0.03)
        edge = draw.uniform(0.4, 0.8) if line else 0.0
        return (
            top,
            bottom,
            _hue(ground or (0, 0, 0), draw, 0.0 if ground == (255, 255, 255) else 0.04),
            scene.horizon,
            edge,
            0.0,
            1.0,
        )
    found = [(255, 255, 255) if word == "white" else BACKGROUNDS[word] for word in scene.paper]
    spread = 0.0 if scene.paper == ("white",) else 0.04
    first, last = _hue(found[0], draw, spread), _hue(found[-1], draw, spread)
    right, down = draw.choice(((0.0, 1.0), (1.0, 0.0), (0.7, 0.7))) if len(found) == 2 else (0.0, 1.0)
    return first, last if len(found) == 2 else first, first, 2.0, 0.0, right, down


def backgrounds(papers: Sequence[Paper], device: torch.device) -> torch.Tensor:
    """(B, 3, 128, 128) in 0..1."""
    top, bottom, ground = (torch.tensor([p[k] for p in papers], device=device)[:, :, None, None] for k in range(3))
    horizon, edge, right, down = (
        torch.tensor([p[k] for p in papers], device=device)[:, None, None, None] for k in range(3, 7)
    )
    axis = torch.linspace(-1, 1, SIDE, device=device)
    x, y = axis.view(1, 1, 1, -1), axis.view(1, 1, -1, 1)
    out = torch.lerp(top, bottom, ((x * right + y * down) / 2 + 0.5).clamp(0, 1))
    out = torch.where(y > horizon, ground.expand_as(out), out)
    near = ((y - horizon).abs() < 0.025).float() * edge
    return out * (1 - near)


def main_colours(rgba: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, set[int]]:
    """The main colours of all icons (N, 3) in 0..1, and the rows of those that they cover enough to be changed."""
    found = [colours.main_colour(part.to(device)) for part in rgba.split(256)]
    share = torch.cat([part for _, part in found]).tolist()
    return torch.cat([main for main, _ in found]), {i for i, part in enumerate(share) if part > colours.ENOUGH}


def compose(rgba: torch.Tensor, main: torch.Tensor, scenes: Sequence[IconScene], draw: random.Random) -> torch.Tensor:
    """(B, 3, 128, 128) in -1..1 of scenes; rgba: all icons; main: their main colours (icons, 3) in 0..1."""
    device = rgba.device
    x = backgrounds([paper(scene, draw) for scene in scenes], device)
    for k in range(max(len(scene.icons) for scene in scenes)):
        at = [i for i, scene in enumerate(scenes) if k < len(scene.icons)]
        rows = torch.tensor([scenes[i].icons[k] for i in at], device=device)
        icons = _painted(rgba[rows], main[rows], [_colour(scenes[i], k) for i in at], draw)
        scale, right, down, angle = torch.tensor([scenes[i].spots[k] for i in at], device=device).unbind(1)
        where = torch.tensor(at, device=device)
        x[where] = over(layer(icons, scale, angle, torch.stack([right, down], 1)), x[where])
    return x.clamp(0, 1) * 2 - 1


def _colour(scene: IconScene, icon: int) -> str:
    """The colour word of one icon of a scene: a pair has two, all of one kind share theirs."""
    return scene.colours[min(icon, len(scene.colours) - 1)]


def _painted(rgba: torch.Tensor, main: torch.Tensor, words: list[str], draw: random.Random) -> torch.Tensor:
    """Icons in the colours of some words; those with an empty word as they are."""
    at = [i for i, word in enumerate(words) if word]
    if not at:
        return rgba
    where = torch.tensor(at, device=rgba.device)
    goal = torch.tensor([_hue(COLOURS[words[i]], draw, 0.03) for i in at], device=rgba.device)
    out = rgba.clone()
    out[where] = colours.painted(rgba[where], main[where], goal)
    return out
