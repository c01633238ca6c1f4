"""What each step is trained on: pictures, noise, timesteps and conditions of a batch, all of them functions of (seed,
number).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lora_studio.config.slices import LossSettings
from lora_studio.dataset import preparation
from lora_studio.dataset.batch_sampler import BatchSampler
from lora_studio.dataset.cache import Cache
from lora_studio.dataset.items import Draw
from lora_studio.diffusion.process import Process
from lora_studio.training import seeds, weights


class Batch(NamedTuple):
    """B samples of one size, on one device."""

    x0: Tensor
    """(B, C, H/8, W/8) scaled latents, float32."""
    noise: Tensor
    """The same shape, float32."""
    timesteps: Tensor
    """(B,) as the noise process draws them."""
    sizes: Tensor
    """(B, 6) float32: as ``Cache.sizes``."""
    text: dict[str, Tensor]
    """The text encoders' features, batch first; empty where they train."""
    captions: list[str]
    """What the features are of."""
    length: int = 0
    """The chunks that the captions are filled up to where the encoders train: those of the longest one, also of the
    parts that other processes take.
    """
    weights: Tensor | None = None
    """(B, 1, H/8, W/8) float32, or (B, 1, 1, 1) where no picture has a mask: what each element's loss is multiplied by.
    None if all count the same in the whole run.
    """
    inpainting: Tensor | None = None
    """As ``Cache.inpainting``, for ``Base.predict``."""

    def tensors(self) -> dict[str, Tensor]:
        """All of its tensors by name."""
        found = {"x0": self.x0, "noise": self.noise, "timesteps": self.timesteps, "sizes": self.sizes, **self.text}
        more = {"weights": self.weights, "inpainting": self.inpainting}
        return found | {name: tensor for name, tensor in more.items() if tensor is not None}

    def replaced(self, tensors: dict[str, Tensor]) -> Batch:
        """The same batch with other ``tensors``, named as those of ``tensors()``."""
        return self._replace(
            x0=tensors["x0"],
            noise=tensors["noise"],
            timesteps=tensors["timesteps"],
            sizes=tensors["sizes"],
            text={name: tensors[name] for name in self.text},
            weights=tensors.get("weights"),
            inpainting=tensors.get("inpainting"),
        )

    def to(self, device: torch.device) -> Batch:
        """A copy on ``device``."""
        return self.replaced({name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors().items()})


class Batches:
    """Draws a run's batches on the CPU, so that every device sees the same.

    Args:
        process: the base model's; it draws noise and timesteps.
        seed: the run's.
        settings: how noise is drawn, and how much of the loss counts outside masks.
        train_text: leave the text features out, since the encoders change.
        pinned: ready for a copy to a GPU that runs beside the GPU's other work.
        part: the samples of each batch to keep, where other processes take the rest.
        area: the share of a picture that is learned, on average (``weights.average_area``).
    """

    def __init__(
        self,
        cache: Cache,
        sampler: BatchSampler,
        process: Process,
        seed: int,
        settings: LossSettings = LossSettings(),
        train_text: bool = False,
        pinned: bool = False,
        part: slice = slice(None),
        area: float = 1.0,
    ):
        self.cache, self.sampler, self.process, self.seed = cache, sampler, process, seed
        self.settings, self.train_text, self.pinned, self.part = settings, train_text, pinned, part
        self.area = area
        self._ahead: tuple[int, Batch] | None = None
        pictures = [sample.picture for sample in cache.samples]
        self._limits = any(picture.timesteps for picture in pictures)
        self._weighted = any(picture.weight != 1 for picture in pictures)

    def take(self, number: int) -> Batch:
        """Batch ``number``, 0 for the first."""
        ahead, self._ahead = self._ahead, None
        return ahead[1] if ahead and ahead[0] == number else self.draw(number)

    def prepare(self, number: int) -> None:
        """Draws batch ``number`` in advance, while a GPU is at work."""
        if self.pinned:
            self._ahead = number, self.draw(number)

    def draw(self, number: int) -> Batch:
        """Batch ``number`` on the CPU."""
        draws = self.sampler.draw(number)
        source = seeds.generator(self.seed, seeds.NOISE, number)
        x0 = self.cache.latents(draws, source)  # latents, noise, timesteps: in another order it would be another run
        noise = self.process.noise(x0.shape, self.settings.noise_offset, source)
        timesteps = self._limited(self.process.draw(len(draws), source), draws)
        batch = self._finished(x0[self.part], noise[self.part], timesteps[self.part], draws, self.part)
        weighted = batch._replace(weights=self._of_folders(batch.weights, draws[self.part]))
        return self._pinned(weighted) if self.pinned else weighted

    def at(self, draws: list[Draw], timesteps: Tensor, source: torch.Generator) -> Batch:
        """Given draws at given timesteps, for validation: there the weights of folders do not count."""
        x0 = self.cache.latents(draws, source)
        noise = self.process.noise(x0.shape, self.settings.noise_offset, source)
        return self._finished(x0, noise, self._limited(timesteps, draws), draws)

    def _finished(
        self, x0: Tensor, noise: Tensor, timesteps: Tensor, draws: list[Draw], part: slice = slice(None)
    ) -> Batch:
        """The texts of all ``draws`` have one length, whichever ``part`` of them is kept."""
        text = {} if self.train_text else {name: whole[part] for name, whole in self.cache.text(draws).items()}
        length = self.cache.length(draws) if self.train_text else 0
        kept = draws[part]
        masks = self.cache.masks(kept, x0)
        counts = None if masks is None else weights.of_masks(masks, self.settings, self.area)
        sizes, captions, shown = self.cache.sizes(kept), self.cache.captions(kept), self.cache.inpainting(kept)
        return Batch(x0, noise, timesteps, sizes, text, captions, length, counts, shown)

    def _limited(self, timesteps: Tensor, draws: list[Draw]) -> Tensor:
        """``timesteps`` (B,) moved into the noise levels of the draws' pictures. Those of pictures without limits stay
        as they are, to the bit.
        """
        if not self._limits:
            return timesteps
        every = 0, preparation.NOISE_LEVELS
        levels = [self.cache.samples[draw.picture].picture.timesteps or every for draw in draws]
        low, high = torch.tensor(levels, dtype=torch.float64).T / preparation.NOISE_LEVELS
        return self.process.within(timesteps, low, high)

    def _of_folders(self, counts: Tensor | None, draws: list[Draw]) -> Tensor | None:
        """The elements' weights, multiplied by those of their pictures' folders."""
        if not self._weighted:
            return counts
        factors = torch.tensor([self.cache.samples[draw.picture].picture.weight for draw in draws])
        return factors.view(-1, 1, 1, 1) * (1 if counts is None else counts)

    @staticmethod
    def _pinned(batch: Batch) -> Batch:
        """A copy from which a GPU can copy beside its other work."""
        return batch.replaced({name: tensor.pin_memory() for name, tensor in batch.tensors().items()})
