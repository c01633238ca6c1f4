"""What a model predicts, as two small objects, so that nobody else has to ask which model it has.

Symbols of Ho et al. 2020, *Denoising Diffusion Probabilistic Models*: x₀ data, ε noise, ᾱ_t the kept share of signal,
and x_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε (eq. 4). SNR(t) = ᾱ_t / (1−ᾱ_t).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from lora_studio.errors import SettingsError


class Prediction(Protocol):
    """A kind of prediction. ``alpha_bar`` is ᾱ_t, (B,) or already shaped to broadcast over (B, C, h, w)."""

    name: str
    """As the setting ``prediction`` says it."""
    diffusers: str
    """As a diffusers scheduler's ``prediction_type`` says it."""

    def target(self, x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
        """What the model should answer to x_t; shape of ``x0`` (B, C, h, w)."""

    def x0(self, predicted: Tensor, noisy: Tensor, alpha_bar: Tensor) -> Tensor:
        """The clean latents that an answer to ``noisy`` (B, C, h, w) stands for."""

    def weight(self, snr: Tensor, gamma: float) -> Tensor:
        """Min-SNR-γ loss weights (Hang et al. 2023, *Efficient Diffusion Training via Min-SNR Weighting Strategy*,
        §3.4), shape of ``snr``.
        """


def _wide(alpha_bar: Tensor, like: Tensor) -> Tensor:
    return alpha_bar.reshape(-1, *[1] * (like.ndim - 1)) if alpha_bar.ndim == 1 else alpha_bar


class Epsilon:
    """The noise itself (Ho et al. 2020, §3.2)."""

    name, diffusers = "epsilon", "epsilon"

    def target(self, x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
        return noise

    def x0(self, predicted: Tensor, noisy: Tensor, alpha_bar: Tensor) -> Tensor:
        a = _wide(alpha_bar, noisy)
        return (noisy - (1 - a).sqrt() * predicted) / a.sqrt()

    def weight(self, snr: Tensor, gamma: float) -> Tensor:
        """min(SNR, γ) / SNR: an error in ε is an error in x₀ times √SNR."""
        return snr.clamp(max=gamma) / snr if gamma else torch.ones_like(snr)


class V:
    """v = √ᾱ ε − √(1−ᾱ) x₀ (Salimans & Ho 2022, *Progressive Distillation for Fast Sampling of Diffusion Models*, §4
    and appendix D).
    """

    name, diffusers = "v", "v_prediction"

    def target(self, x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
        a = _wide(alpha_bar, x0)
        return a.sqrt() * noise - (1 - a).sqrt() * x0

    def x0(self, predicted: Tensor, noisy: Tensor, alpha_bar: Tensor) -> Tensor:
        a = _wide(alpha_bar, noisy)
        return a.sqrt() * noisy - (1 - a).sqrt() * predicted

    def weight(self, snr: Tensor, gamma: float) -> Tensor:
        """min(SNR, γ) / (SNR + 1): an error in v is an error in x₀ times √(SNR + 1)."""
        return snr.clamp(max=gamma) / (snr + 1) if gamma else torch.ones_like(snr)


EPSILON, VELOCITY = Epsilon(), V()
NAMES: dict[str, Prediction] = {
    "epsilon": EPSILON,
    "eps": EPSILON,
    "v": VELOCITY,
    "v_prediction": VELOCITY,
    "velocity": VELOCITY,
}
"""What settings, schedulers' configurations and files' metadata call them."""


def named(name: str) -> Prediction:
    """The prediction that a setting, a scheduler's configuration or a file's metadata names.

    Raises:
        SettingsError: it is none that the studio can train (such as ``sample`` or ``flow``).
    """
    if name not in NAMES:
        raise SettingsError(
            f"The studio cannot train a model that predicts {name!r}.",
            where="prediction",
            do="It can train models that predict the noise (epsilon) or the velocity (v).",
        )
    return NAMES[name]
