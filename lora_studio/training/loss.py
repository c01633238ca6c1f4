"""The loss of one batch of noised latents."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_studio.config.slices import LossSettings
from lora_studio.diffusion import weighting
from lora_studio.diffusion.process import Process, per_sample
from lora_studio.models import Base
from lora_studio.training.batches import Batch


def losses(base: Base, batch: Batch, text: Mapping[str, Tensor], settings: LossSettings) -> Tensor:
    """The weighted loss of each sample of ``batch``.

    Args:
        text: the text encoders' features, batch first: the batch's own, or where the encoders train, of its captions.

    Returns:
        (B,) float32, differentiable.
    """
    process, timesteps = base.process, batch.timesteps
    shown = batch.noise if batch.perturbation is None else batch.noise + batch.perturbation
    noisy = process.add_noise(batch.x0, shown, timesteps)
    predicted = base.predict(noisy, timesteps, text, batch.sizes, batch.inpainting).float()
    target = process.target(batch.x0, batch.noise, timesteps)
    each = _distance(predicted, target, settings, process, timesteps)
    if batch.weights is not None:
        each = each * batch.weights
    found = each.mean(dim=(1, 2, 3))
    counts = weighting.weight(process, timesteps, settings)
    return found if counts is None else found * counts


def _distance(predicted: Tensor, target: Tensor, settings: LossSettings, process: Process, timesteps: Tensor) -> Tensor:
    """How much each element counts, by its error e. Small errors count e² in all but the absolute error, so that a rate
    that suits one loss suits the others:

    - mse: e².
    - huber: e² up to δ, then 2 δ |e| − δ² (twice Huber 1964).
    - logcosh: 2 δ² ln cosh(e / δ), which is smooth, and for large errors 2 δ |e| − 1.39 δ².
    - l1: |e|. mixed: (1 − a) e² + a |e|.
    """
    if settings.loss == "mse":
        return F.mse_loss(predicted, target, reduction="none")
    if settings.loss == "huber" and settings.huber_schedule == "constant":
        return 2 * F.huber_loss(predicted, target, reduction="none", delta=settings.huber_delta)
    error = (predicted - target).abs()
    if settings.loss in ("l1", "mixed"):
        share = 1.0 if settings.loss == "l1" else settings.absolute_share
        return share * error + (1 - share) * error**2
    delta = per_sample(_delta(settings, process, timesteps), error).to(error.dtype)
    if settings.loss == "huber":
        return (error**2).where(error <= delta, delta * (2 * error - delta))
    far = error / delta
    return 2 * delta**2 * (far + F.softplus(-2 * far) - math.log(2))


def _delta(settings: LossSettings, process: Process, timesteps: Tensor) -> Tensor:
    """(B,) δ at ``timesteps``, as sd-scripts schedules it (Khrapov et al. 2024, *Improving Diffusion Models's
    Data-Corruption Resistance using Scheduled Pseudo-Huber Loss*): (1 − c) / (1 + σ)² + c with σ = 1 / √SNR, or cˢ with
    s from 0, no noise, to 1, nothing else.
    """
    c = settings.huber_delta
    if settings.huber_schedule == "snr":
        return (1 - c) / (1 + (-process.log_snr(timesteps) / 2).exp()) ** 2 + c
    if settings.huber_schedule == "exponential":
        return c ** process.share(timesteps)
    return timesteps.new_full(timesteps.shape, c, dtype=torch.float32)
