"""Loss on pictures kept out of training, at fixed noise and timesteps: its curve shows learning and not luck."""

from __future__ import annotations

import torch

from lora_studio.dataset.items import Draw
from lora_studio.evaluation.measure import Measure
from lora_studio.evaluation.value import Value
from lora_studio.events import Event, Validated
from lora_studio.language import tr
from lora_studio.training import seeds
from lora_studio.training.batches import Batches
from lora_studio.training.loss import losses
from lora_studio.training.session import Session

TIMESTEPS = 4
"""Timesteps that each picture is tried at, spread evenly over the noise process."""


class ValidationLoss(Measure):
    name, title = "validation", tr("Validation")

    def applies(self, session: Session) -> bool:
        return bool(session.data.validation)

    def measure(self, session: Session) -> Value:
        return Value(loss(session))

    def event(self, step: int, found: Value) -> Event:
        """An event of its own, which earlier versions read too."""
        return Validated(step=step, loss=found.value)


@torch.no_grad()
def loss(session: Session) -> float:
    """Mean loss over the validation pictures, one at a time: pictures of different buckets cannot share a batch."""
    session.base.unet.eval()
    try:
        with session.as_exported():
            return sum(_picture(session, index) for index in session.data.validation) / len(session.data.validation)
    finally:
        session.base.unet.train()


def _picture(session: Session, index: int) -> float:
    base, settings = session.base, session.settings
    session.stopping_early()
    source = seeds.generator(settings.run.seed, seeds.VALIDATION, index)
    draws = [Draw(picture=index, flip=False, variant=0, drop_caption=False)] * TIMESTEPS
    batches = session.data.batches
    assert isinstance(batches, Batches), "only pictures are held out"
    batch = batches.at(draws, base.process.evenly(TIMESTEPS), source).to(session.machine.device)
    return losses(base, batch, session.text(batch), settings.loss).mean().item()
