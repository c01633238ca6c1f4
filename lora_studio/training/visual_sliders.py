"""Runs of picture pairs: visual concept sliders (Gandikota et al. 2023, *Concept Sliders*, §4.2, eq. 9). The same noise
is added to both pictures of a pair, and the adapter learns to remove it from one at weight 1, and from the other at −1:
what they have in common needs no change, and what they differ in has opposite signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lora_studio.config.settings import Settings
from lora_studio.dataset.batch_sampler import BatchSampler
from lora_studio.dataset.cache import Cache
from lora_studio.dataset.items import Draw, PromptPair
from lora_studio.diffusion.process import Process
from lora_studio.training import seeds
from lora_studio.training.batches import Batch, BatchSource


class PicturePairBatches(BatchSource):
    """The batches of a run of picture pairs. In an epoch every pair comes up once; those of a batch have one size.

    Args:
        cache: its samples are the two pictures of each of ``pairs``, in their order.
        process: the base model's.
        part: the samples of each batch to keep, where other processes take the rest.
        pinned: as of ``BatchSource``.
    """

    def __init__(
        self,
        pairs: Sequence[PromptPair],
        cache: Cache,
        process: Process,
        settings: Settings,
        part: slice = slice(None),
        pinned: bool = False,
    ):
        super().__init__(pinned)
        self.pairs, self.cache, self.process, self.part = pairs, cache, process, part
        self.seed, first_of_each = settings.run.seed, range(0, 2 * len(pairs), 2)
        self.sampler = BatchSampler(cache.samples, settings.optimizer.batch, self.seed, among=first_of_each)

    def drawn(self, number: int) -> Batch:
        draws = self.sampler.draw(number)
        # latents, noise, timesteps: in another order it would be another run
        towards, source = self._latents(draws, number)
        away, _ = self._latents([replace(draw, picture=draw.picture + 1) for draw in draws], number)
        noise = torch.randn(towards.shape, generator=source)[self.part]
        timesteps = self.process.draw(len(draws), source)[self.part]
        draws, ends = draws[self.part], (towards[self.part], away[self.part])
        pairs = [self.pairs[draw.picture // 2] for draw in draws]
        prompts = [pair.trained for pair in pairs]
        return Batch(
            x0=ends[0],
            noise=noise,
            timesteps=timesteps,
            sizes=self.cache.sizes(draws),
            text=self.cache.of_captions(prompts),
            captions=prompts,
            weights=torch.tensor([pair.weight for pair in pairs]).view(-1, 1, 1, 1),
            targets=torch.stack([self.process.target(x0, noise, timesteps) for x0 in ends]),
            shown=torch.stack([self.process.add_noise(x0, noise, timesteps) for x0 in ends]),
        )

    def _latents(self, draws: list[Draw], number: int) -> tuple[Tensor, torch.Generator]:
        """(B, C, h, w) of one end of the pairs, and what noise is drawn from next: the same for both ends."""
        source = seeds.generator(self.seed, seeds.NOISE, number)
        return self.cache.latents(draws, source), source
