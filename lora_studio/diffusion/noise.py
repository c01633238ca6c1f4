"""The noise that pictures are trained with, ε of ``process``: plain, or with more of it at coarse scales."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class NoiseOptions(Protocol):
    """The settings that noise is drawn by; ``NoiseSettings`` is one."""

    @property
    def noise_offset(self) -> float: ...
    @property
    def multires_discount(self) -> float: ...
    @property
    def input_perturbation(self) -> float: ...


def draw(shape: torch.Size, choice: NoiseOptions, source: torch.Generator) -> Tensor:
    """ε of ``shape`` (B, C, h, w), float32 on the CPU; plain noise is standard normal.

    ``noise_offset`` is how much of one further normal draw for each channel is added (noise offset, Guttenberg 2023,
    *Diffusion with Offset Noise*).
    """
    import torch  # surfaces read the names of this room, and start before torch is loaded

    noise = torch.randn(shape, generator=source)
    if choice.multires_discount:
        noise = _multires(noise, choice.multires_discount, source)
    if choice.noise_offset:
        noise = noise + choice.noise_offset * torch.randn((*shape[:2], 1, 1), generator=source)
    return noise


def perturbation(shape: torch.Size, choice: NoiseOptions, source: torch.Generator) -> Tensor | None:
    """What is added to ε in the denoiser's input and not in its target, of ``shape``; None for nothing.

    γ ξ with ξ standard normal (Ning et al. 2023, *Input Perturbation Reduces Exposure Bias in Diffusion Models*,
    algorithm 1, γ = 0.1): the denoiser learns to cope with the errors of its own earlier steps.
    """
    import torch

    strength = choice.input_perturbation
    return strength * torch.randn(shape, generator=source) if strength else None


def _multires(noise: Tensor, discount: float, source: torch.Generator) -> Tensor:
    """``noise`` (B, C, h, w) and noise at coarser and coarser scales, each weighted by ``discount`` once more (Whitaker
    2023, *Multi-Resolution Noise for Diffusion Model Training*). A scale is 2 to 4 times coarser than the one before,
    down to a side of 1; each picture's noise is scaled back to a standard deviation of 1.
    """
    import torch
    import torch.nn.functional as F

    height, width = noise.shape[-2:]
    rows, columns, weight = float(height), float(width), 1.0
    while min(rows, columns) > 1:
        coarser = 2 + 2 * torch.rand((), generator=source).item()
        rows, columns, weight = max(1.0, rows / coarser), max(1.0, columns / coarser), weight * discount
        coarse = torch.randn((*noise.shape[:2], int(rows), int(columns)), generator=source)
        noise = noise + weight * F.interpolate(coarse, (height, width), mode="bilinear")
    return noise / noise.std((1, 2, 3), keepdim=True)
