"""Preservation without pictures: captions without the trigger word are still answered as by the base model.

The base model's own answer for the caption without the trigger word is the target there (ai-toolkit's "differential
output preservation"). So what is learned belongs to the trigger word, and the rest stays free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from lora_studio.config.settings import Settings
from lora_studio.dataset.phrases import replaced
from lora_studio.models import Base, inject
from lora_studio.training.batches import Batch, Texts


def plain_caption(settings: Settings) -> Callable[[str], str] | None:
    """What makes of a caption the one that is preserved; None where nothing is."""
    if not settings.loss.preserve_weight:
        return None
    return partial(replaced, phrase=settings.run.trigger, by=settings.loss.preserve_class.strip())


def losses(base: Base, batch: Batch, plain: Texts, read: Callable[[Texts], Mapping[str, Tensor]]) -> Tensor:
    """How far the model's answers for the ``plain`` captions are from the base model's, whatever the loss of the
    pictures is: mean squared errors, without masks, weights of folders or of timesteps. Exactly 0 for an adapter that
    changes nothing.

    Args:
        read: the features of texts: the batch's own, or where the encoders train, as they read them now.

    Returns:
        (B,) float32, differentiable.
    """
    noisy = base.process.add_noise(batch.x0, batch.noise, batch.timesteps)

    def answer() -> Tensor:
        return base.predict(noisy, batch.timesteps, read(plain), batch.sizes, batch.inpainting).float()

    with torch.no_grad(), inject.without_adapter(base):
        wanted = answer()
    return (answer() - wanted).square().mean(dim=(1, 2, 3))
