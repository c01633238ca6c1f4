"""The passes of a batch: drawn, and where it is wanted enlarged and refined."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from lora_studio.models import Base
from lora_studio.sampling.denoise import UNSEEN, Sampling, Start, Watch, denoise
from lora_studio.sampling.guided import PromptFeatures


def latents_of(
    base: Base,
    shown: PromptFeatures,
    seeds: Sequence[int],
    how: Sampling,
    start: Start | None = None,
    watch: Watch = UNSEEN,
) -> Tensor | None:
    """Scaled latents (B, C, h, w) of a batch after its last pass, or None where it was cancelled; as ``denoise``.

    The second pass enlarges the latents bilinearly, as A1111's upscaler "Latent" does, and begins with the noise of the
    same seeds.
    """
    latents = denoise(base, shown, seeds, how, start, watch)
    if latents is None or how.then is None:
        return latents
    size = how.then.how.height // base.scale, how.then.how.width // base.scale
    enlarged = F.interpolate(latents, size, mode="bilinear")
    return denoise(base, shown, seeds, how.then.how, Start(enlarged, how.then.strength), watch)
