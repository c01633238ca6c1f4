"""What a base model sees in pictures: features of its denoiser, without any adapter and without a word of text.

Nothing is downloaded, and a model that can draw a subject can also tell it. Letters: P prompts, S seeds, N pictures,
D features.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lora_studio.models import Base, inject

_SEED = 11
"""Of the noise, the same for all pictures: their features differ by what they show alone."""
_AT_ONCE = 16
STYLE_LEVEL, SUBJECT_LEVEL = (8, 0), (10, 1)
"""How noisy the pictures are that are looked at, as (parts, part) of ``Process.evenly``: 6 and 15 % of the way."""


@torch.no_grad()
def style(base: Base, latents: Sequence[Tensor]) -> Tensor:
    """(N, D) float32 on the CPU: means and deviations over space of the channels of ``Family.style_blocks``, of
    pictures' scaled latents (C, h, w).
    """
    rows = [
        torch.cat([torch.cat([block.mean((2, 3)), block.std((2, 3), correction=0)], 1) for block in blocks.values()], 1)
        for blocks in _looked_at(base, latents, STYLE_LEVEL, base.family.style_blocks)
    ]
    return torch.cat(rows)


@torch.no_grad()
def subject(base: Base, latents: Sequence[Tensor]) -> Tensor:
    """(N, D) float32 on the CPU: the output of ``Family.subject_block``, averaged to 2 × 2 places, of pictures' scaled
    latents (C, h, w).
    """
    rows = [
        torch.nn.functional.adaptive_avg_pool2d(next(iter(blocks.values())), 2).flatten(1)
        for blocks in _looked_at(base, latents, SUBJECT_LEVEL, (base.family.subject_block,))
    ]
    return torch.cat(rows)


def _looked_at(
    base: Base, latents: Sequence[Tensor], level: tuple[int, int], blocks: Sequence[str]
) -> Iterator[dict[str, Tensor]]:
    """The outputs of ``blocks``, (B, c, h', w') float32 on the CPU, for batches of pictures of one size, in order."""
    timestep = base.process.evenly(level[0])[level[1]]
    text = base.encode_text([""])
    training = base.unet.training
    base.unet.eval()
    try:
        for batch in _alike(latents):
            x0 = torch.stack(batch).float()
            noise = base.process.noise(x0[:1].shape, 0.0, torch.Generator().manual_seed(_SEED)).expand_as(x0)
            times = timestep.expand(len(x0))
            noisy = base.process.add_noise(x0, noise, times)
            words = {name: feature.expand(len(x0), *feature.shape[1:]) for name, feature in text.items()}
            with inject.without_adapter(base), _outputs(base, blocks) as found:
                base.predict(noisy.to(base.device), times.to(base.device), words)
            yield {name: output.float().cpu() for name, output in found.items()}
    finally:
        base.unet.train(training)


def _alike(latents: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one size, ``_AT_ONCE`` at most."""
    batch: list[Tensor] = []
    for one in latents:
        if batch and (len(batch) == _AT_ONCE or one.shape != batch[0].shape):
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


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
