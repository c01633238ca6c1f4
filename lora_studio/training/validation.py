"""Loss on pictures kept out of training, at fixed noise and timesteps, so that its curve shows learning and not luck."""

from __future__ import annotations

import torch

from lora_studio.dataset.order import Draw
from lora_studio.training import optimizers, step
from lora_studio.training.session import Session

TIMESTEPS = 4
"""Timesteps a picture is tried at, spread evenly over the schedule."""


@torch.no_grad()
def loss(session: Session) -> float:
    """Mean loss over the validation pictures, one at a time: pictures of different buckets cannot share a batch."""
    optimizers.mode(session.optimizer, training=False)
    session.base.unet.eval()
    try:
        with session.average.applied(), session.machine.autocast():
            return sum(_picture(session, index) for index in session.validation) / len(session.validation)
    finally:
        session.base.unet.train()
        optimizers.mode(session.optimizer, training=True)


def _picture(session: Session, index: int) -> float:
    base, device = session.base, session.machine.device
    source = step.generator(session.settings.seed, step.VALIDATION, index)
    draws = [Draw(picture=index, flip=False, variant=0, drop_caption=False)] * TIMESTEPS
    x0 = session.cache.latents(draws, source)
    noise = step.draw_noise(x0.shape, session.settings.noise_offset, source)
    count = len(base.alphas_cumprod)
    timesteps = torch.tensor([round((i + 0.5) / TIMESTEPS * count) for i in range(TIMESTEPS)])
    return step.losses(base, x0.to(device), noise.to(device), timesteps.to(device), *session.conditions(draws), session.settings).mean().item()
