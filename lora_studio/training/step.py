"""The loss of one batch of noised latents. Symbols as in Ho et al. 2020: x₀ data, ε noise, ᾱ_t the kept share of
signal.
"""

from __future__ import annotations

import hashlib
import struct

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_studio.config.settings import Settings
from lora_studio.models import Base

NOISE, DROPOUT, VALIDATION = range(3)
"""What a generator is for: keeps the streams of one step apart."""


def seed_of(*keys: int) -> int:
    """A 63-bit seed that is a function of ``keys`` alone, such as (seed, purpose, step), so that no generator's state
    need be saved.
    """
    digest = hashlib.sha256(struct.pack(f"<{len(keys)}q", *keys)).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*keys: int) -> torch.Generator:
    """A CPU generator seeded with ``seed_of(*keys)``."""
    return torch.Generator().manual_seed(seed_of(*keys))


def draw_noise(shape: torch.Size, offset: float, source: torch.Generator) -> Tensor:
    """ε of ``shape`` (B, 4, h, w), float32 on the CPU; ``offset`` adds one normal draw a channel (noise offset,
    Guttenberg 2023).
    """
    noise = torch.randn(shape, generator=source)
    return noise + offset * torch.randn((*shape[:2], 1, 1), generator=source) if offset else noise


def diffuse(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε (Ho et al. 2020, eq. 4). ``alpha_bar`` is (B, 1, 1, 1)."""
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise


def losses(
    base: Base,
    x0: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    text: dict[str, Tensor],
    sizes: Tensor | None,
    settings: Settings,
) -> Tensor:
    """The weighted loss of each sample.

    Args:
        x0: (B, 4, H/8, W/8) scaled latents, float32.
        noise: the same shape, float32.
        timesteps: (B,) int64 in 0 … T−1.
        text: the text encoders' features, batch first.
        sizes: (B, 6) original size, crop and target size where the family wants them.

    Returns:
        (B,) float32, differentiable.
    """
    alpha_bar = base.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    predicted = base.predict(diffuse(x0, noise, alpha_bar), timesteps, text, sizes).float()
    target = base.prediction.target(x0, noise, alpha_bar)
    per_sample = _distance(predicted, target, settings).mean(dim=(1, 2, 3))
    if settings.loss.min_snr_gamma:
        snr = alpha_bar.flatten() / (1 - alpha_bar.flatten())
        per_sample = per_sample * base.prediction.weight(snr, settings.loss.min_snr_gamma)
    return per_sample


def _distance(predicted: Tensor, target: Tensor, settings: Settings) -> Tensor:
    if settings.loss.loss == "huber":
        return 2 * F.huber_loss(
            predicted, target, reduction="none", delta=settings.loss.huber_delta
        )  # ½e² near zero: doubled, it meets mse there
    return F.mse_loss(predicted, target, reduction="none")
