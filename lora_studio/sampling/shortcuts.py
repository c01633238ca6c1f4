"""What a base model does sooner while it stays in memory to draw with, and for nothing else."""

from __future__ import annotations

import torch

from lora_studio.events import Warned
from lora_studio.language import tr
from lora_studio.models import Base, autoencode
from lora_studio.sampling import kept_texts, replay

DECODED_AT_ONCE = 2**20
"""Pixels of the pictures that a GPU decodes together: one of 1024 × 1024 or four of 512 × 512 fill it."""


def take(base: Base) -> None:
    """Has ``base`` remember texts, record its denoising steps, and decode in bf16 where it computes in that. Does
    nothing on a CPU but to remember texts. May be called again.

    bf16 has the range of float32, so what overflows in fp16, as SDXL's VAE does, does not overflow in it. Models in
    fp16 go on to decode in float32, and every VAE to encode in it.
    """
    kept_texts.enable(base)
    if base.device.type != "cuda":
        return
    replay.enable(base)
    base.decode_at_once = DECODED_AT_ONCE
    if base.dtype == torch.bfloat16:
        autoencode.narrow_decoder(base.vae, base.dtype)


def save_memory(base: Base) -> None:
    """Gives up those that cost memory, until they are taken again: others need the device."""
    replay.disable(base)
    base.decode_at_once = 0


def warning(base: Base) -> Warned | None:
    """What is to be said of steps that could not be recorded, once."""
    if not (why := replay.take_failure(base)):
        return None
    return Warned(
        what=tr("Denoising steps could not be recorded as a CUDA graph: {why}.", why=why),
        do=tr("Pictures are drawn without, which is slower and gives the same."),
    )
