"""Loss on pictures kept out of training, at fixed noise and timesteps, so that its curve shows learning and not luck."""

from __future__ import annotations

import torch

from lora_studio.dataset.order import Draw
from lora_studio.training import step
from lora_studio.training.session import Session

TIMESTEPS = 4
"""Timesteps a picture is tried at, spread evenly over the schedule."""


@torch.no_grad()
def loss(session: Session) -> float:
    """Mean loss over the validation pictures, one at a time: pictures of different buckets cannot share a batch."""
    session.base.unet.eval()
    try:
        with session.settled():
            return sum(_picture(session, index) for index in session.validation) / len(session.validation)
    finally:
        session.base.unet.train()


def _picture(session: Session, index: int) -> float:
    base = session.base
    source = step.generator(session.settings.run.seed, step.VALIDATION, index)
    draws = [Draw(picture=index, flip=False, variant=0, drop_caption=False)] * TIMESTEPS
    count = len(base.alphas_cumprod)
    timesteps = torch.tensor([round((i + 0.5) / TIMESTEPS * count) for i in range(TIMESTEPS)])
    batch = session.batches.at(draws, timesteps, source).to(session.machine.device)
    text = batch.text or base.encode_text(batch.captions)
    return step.losses(base, batch.x0, batch.noise, batch.timesteps, text, batch.sizes, session.settings).mean().item()
