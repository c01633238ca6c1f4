"""The loss of one batch of noised latents."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lora_studio.config.slices import LossSettings
from lora_studio.models import Base
from lora_studio.training.batches import Batch


def losses(base: Base, batch: Batch, text: dict[str, Tensor], settings: LossSettings) -> Tensor:
    """The weighted loss of each sample of ``batch``.

    Args:
        text: the text encoders' features, batch first: the batch's own, or where the encoders train, of its captions.

    Returns:
        (B,) float32, differentiable.
    """
    process, timesteps = base.process, batch.timesteps
    noisy = process.add_noise(batch.x0, batch.noise, timesteps)
    predicted = base.predict(noisy, timesteps, text, batch.sizes, batch.inpainting).float()
    target = process.target(batch.x0, batch.noise, timesteps)
    each = _distance(predicted, target, settings)
    if batch.weights is not None:
        each = each * batch.weights
    per_sample = each.mean(dim=(1, 2, 3))
    if settings.min_snr_gamma:
        per_sample = per_sample * process.weight(timesteps, settings.min_snr_gamma)
    return per_sample


def _distance(predicted: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
    """The error of each element: squared, or from ``huber_delta`` on linear (Huber 1964)."""
    if settings.loss == "huber":  # ½e² near zero: doubled, it equals the squared error there
        return 2 * F.huber_loss(predicted, target, reduction="none", delta=settings.huber_delta)
    return F.mse_loss(predicted, target, reduction="none")
