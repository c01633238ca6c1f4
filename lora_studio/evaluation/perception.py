"""What a base model sees in pictures: features of its denoiser, without any adapter and without a word of text.

Nothing is downloaded, and a model that can draw a subject can also tell it. Letters: P prompts, S seeds, N pictures,
D features.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_studio.errors import MachineError
from lora_studio.language import tr
from lora_studio.models import Base, inject
from lora_studio.sampling.generate import IMAGES_AT_ONCE, PIXELS_AT_ONCE

_SEED = 11
"""Of the noise, the same for all pictures: their features differ by what they show alone."""
LEVEL = (8, 0)
"""How noisy the pictures are that are looked at, as (parts, part) of ``Process.evenly``: 6 % of the way."""


class Seen(NamedTuple):
    """What was seen of N pictures, float32 on the CPU.

    Attributes:
        style: (N, D) means and deviations over space of the channels of ``Family.style_blocks``.
        subject: (N, D) the output of ``Family.subject_block``, averaged to 2 × 2 places.
    """

    style: Tensor
    subject: Tensor


@torch.no_grad()
def look(base: Base, latents: Sequence[Tensor]) -> Seen:
    """What the base model sees in pictures, of their scaled latents (C, h, w): one forward pass for both features, of
    as many at once as a batch of previews has. That is halved where memory is short.

    Raises:
        MachineError: not even one picture fits into memory.
    """
    rows: list[Seen] = []
    text = base.encode_text([""])
    most, done = IMAGES_AT_ONCE, 0
    while done < len(latents):
        batch = _of_one_size(latents[done : done + at_once(base, latents[done], most)])
        try:
            rows.append(_seen(base, torch.stack(batch).float(), text))
            done += len(batch)
        except torch.OutOfMemoryError:
            most = _halved(len(batch))
    return Seen(*(torch.cat(part) for part in zip(*rows, strict=True)))


def at_once(base: Base, latent: Tensor, most: int = IMAGES_AT_ONCE) -> int:
    """Pictures of the size of ``latent`` that are looked at together."""
    pixels = latent.shape[-2] * latent.shape[-1] * base.scale**2
    return max(1, min(most, PIXELS_AT_ONCE // pixels))


def _halved(count: int) -> int:
    if count == 1:
        do = tr("Close other programs that use the GPU, or train at a smaller resolution.")
        raise MachineError(
            tr("There is not enough memory to measure even one picture."), where="device", do=do
        ) from None
    torch.cuda.empty_cache()
    return count // 2


def _seen(base: Base, x0: Tensor, text: Mapping[str, Tensor]) -> Seen:
    """What is seen of pictures ``x0`` (B, C, h, w), with the empty ``text``."""
    blocks = _outputs_of(base, x0, text, (*base.family.style_blocks, base.family.subject_block))
    style = [blocks[name] for name in base.family.style_blocks]
    moments = [moment for block in style for moment in (block.mean((2, 3)), block.std((2, 3), correction=0))]
    subject = F.adaptive_avg_pool2d(blocks[base.family.subject_block], 2).flatten(1)
    return Seen(torch.cat(moments, 1).cpu(), subject.cpu())


def _outputs_of(base: Base, x0: Tensor, text: Mapping[str, Tensor], blocks: Sequence[str]) -> dict[str, Tensor]:
    """The outputs of ``blocks``, (B, c, h', w') float32, for pictures ``x0`` (B, C, h, w) with noise."""
    parts, part = LEVEL
    times = base.process.evenly(parts)[part].expand(len(x0))
    noise = torch.randn(x0[:1].shape, generator=torch.Generator().manual_seed(_SEED)).expand_as(x0)
    noisy = base.process.add_noise(x0, noise, times)
    words = {name: feature.expand(len(x0), *feature.shape[1:]) for name, feature in text.items()}
    training = base.unet.training
    base.unet.eval()
    try:
        with inject.without_adapter(base), _outputs(base, blocks) as found:
            base.predict(noisy.to(base.device), times.to(base.device), words)
        return {name: output.float() for name, output in found.items()}
    finally:
        base.unet.train(training)


def _of_one_size(latents: Sequence[Tensor]) -> list[Tensor]:
    """The first ones, as far as they have one size."""
    return list(itertools.takewhile(lambda one: one.shape == latents[0].shape, latents))


@contextmanager
def _outputs(base: Base, blocks: Sequence[str]) -> Generator[Mapping[str, Tensor]]:
    """What ``blocks`` of the denoiser give, by their names, once it was called."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: object, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            found[name] = output[0] if isinstance(output, tuple) else output

        return base.unet.get_submodule(name).register_forward_hook(hook)

    handles = [keep(name) for name in blocks]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
