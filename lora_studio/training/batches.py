"""What each step is trained on: pictures, noise, timesteps and conditions of a batch, all of them functions of (seed,
number).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lora_studio.config.slices import LossSettings, NoiseSettings
from lora_studio.dataset.batch_sampler import BatchSampler
from lora_studio.dataset.cache import Cache
from lora_studio.dataset.items import Draw
from lora_studio.diffusion import noise as noises
from lora_studio.diffusion import timesteps as chosen
from lora_studio.diffusion.process import Process
from lora_studio.training import noise_levels, seeds, weights


class Texts(NamedTuple):
    """B captions as a model reads them."""

    features: dict[str, Tensor]
    """Of the text encoders, batch first; empty where they train."""
    captions: list[str]
    length: int
    """As ``Batch.length``."""


class Contrast(NamedTuple):
    """Where a batch of prompt pairs is drawn from, and what its targets are made of; see ``sliders``."""

    texts: dict[str, Texts]
    """``empty``, the empty prompt beside the batch's own; ``neutral``, ``towards`` and ``away``."""
    weight: float
    """Of the adapter that it is drawn with: 1 or −1."""
    steps: int
    """Denoising steps that are taken from its noise."""


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
    plain: Texts | None = None
    """The captions that are preserved, where the batch preserves any (``preservation``)."""
    perturbation: Tensor | None = None
    """As ``diffusion.noise.perturbation``; None where the denoiser is shown the noise that it has to predict."""
    contrast: Contrast | None = None
    """Of a batch of prompt pairs: ``x0`` is then zero, and ``noise`` what drawing begins with."""
    targets: Tensor | None = None
    """(D, B, C, H/8, W/8) float32: what is to be predicted of ``noise``, which was drawn from ``contrast``, with the
    adapter at weight 1 and, where D is 2, at −1.
    """
    shown: Tensor | None = None
    """(D, B, C, H/8, W/8) float32: what the denoiser is shown at each of those weights, of pairs of pictures; None
    where it is ``noise`` at both.
    """

    def tensors(self) -> dict[str, Tensor]:
        """All of its tensors by name."""
        found = {"x0": self.x0, "noise": self.noise, "timesteps": self.timesteps, "sizes": self.sizes, **self.text}
        more = {name: getattr(self, name) for name in ("weights", "inpainting", "perturbation", "targets", "shown")}
        other = {
            f"{of} {name}": tensor for of, texts in self._others().items() for name, tensor in texts.features.items()
        }
        return found | {name: tensor for name, tensor in more.items() if tensor is not None} | other

    def replaced(self, tensors: dict[str, Tensor]) -> Batch:
        """The same batch with other ``tensors``, named as those of ``tensors()``."""
        others = {
            of: texts._replace(features={name: tensors[f"{of} {name}"] for name in texts.features})
            for of, texts in self._others().items()
        }
        plain = others.pop("plain", None)
        return self._replace(
            x0=tensors["x0"],
            noise=tensors["noise"],
            timesteps=tensors["timesteps"],
            sizes=tensors["sizes"],
            text={name: tensors[name] for name in self.text},
            weights=tensors.get("weights"),
            inpainting=tensors.get("inpainting"),
            plain=plain,
            perturbation=tensors.get("perturbation"),
            contrast=self.contrast and self.contrast._replace(texts=others),
            targets=tensors.get("targets"),
            shown=tensors.get("shown"),
        )

    def _others(self) -> dict[str, Texts]:
        """Texts beside its own."""
        return ({"plain": self.plain} if self.plain else {}) | (self.contrast.texts if self.contrast else {})

    def to(self, device: torch.device) -> Batch:
        """A copy on ``device``."""
        return self.replaced({name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors().items()})


class BatchSource(ABC):
    """Draws a run's batches on the CPU, so that every device sees the same.

    Args:
        pinned: ready for a copy to a GPU that runs beside the GPU's other work.
    """

    def __init__(self, pinned: bool = False):
        self.pinned = pinned
        self._ahead: tuple[int, Batch] | None = None

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
        drawn = self.drawn(number)
        if not self.pinned:
            return drawn
        return drawn.replaced({name: tensor.pin_memory() for name, tensor in drawn.tensors().items()})

    @abstractmethod
    def drawn(self, number: int) -> Batch:
        """The same, not yet pinned: a function of the run's seed and ``number`` alone."""


class Batches(BatchSource):
    """The batches of a run of pictures.

    Args:
        process: the base model's; it draws noise and timesteps.
        seed: the run's.
        settings: how much of the loss counts outside masks.
        noise: how noise and timesteps are drawn.
        live_text: leave the text features out, since they change while it trains.
        pinned: as of ``BatchSource``.
        part: the samples of each batch to keep, where other processes take the rest.
        area: the share of a picture that is learned, on average (``weights.average_area``).
        plain: makes of a caption the one that is preserved, in every ``preserve_every``th batch; None preserves none.
    """

    def __init__(
        self,
        cache: Cache,
        sampler: BatchSampler,
        process: Process,
        seed: int,
        settings: LossSettings = LossSettings(),
        noise: NoiseSettings = NoiseSettings(),
        live_text: bool = False,
        pinned: bool = False,
        part: slice = slice(None),
        area: float = 1.0,
        plain: Callable[[str], str] | None = None,
    ):
        super().__init__(pinned)
        self.cache, self.sampler, self.process, self.seed = cache, sampler, process, seed
        self.settings, self.live_text, self.part = settings, live_text, part
        self.noise, self.area, self.plain = noise, area, plain
        pictures = [sample.picture for sample in cache.samples]
        self._folder_levels = [noise_levels.of_folder(picture) for picture in pictures]
        self._levels = [one & noise_levels.of_run(noise) for one in self._folder_levels]
        self._weighted = any(picture.weight != 1 for picture in pictures)

    def drawn(self, number: int) -> Batch:
        draws = self.sampler.draw(number)
        source = seeds.generator(self.seed, seeds.NOISE, number)
        # latents, noise, timesteps, perturbation: in another order it would be another run
        x0 = self.cache.latents(draws, source)
        noise = noises.draw(x0.shape, self.noise, source)
        levels = noise_levels.ranges([self._levels[draw.picture] for draw in draws])
        timesteps = chosen.draw(self.process, self.noise, len(draws), source, levels)
        batch = self._finished(x0[self.part], noise[self.part], timesteps[self.part], draws, self.part)
        more = noises.perturbation(x0.shape, self.noise, source)
        drawn = batch._replace(
            weights=self._of_folders(batch.weights, draws[self.part]),
            perturbation=None if more is None else more[self.part],
        )
        if self.plain and number % self.settings.preserve_every == 0:
            plain = [self.plain(self.cache.caption(draw)) for draw in draws]
            drawn = drawn._replace(plain=self._texts(plain, self.part))
        return drawn

    def at(self, draws: list[Draw], timesteps: Tensor, source: torch.Generator) -> Batch:
        """Given draws at given timesteps, for validation: there neither the weights of folders count nor input
        perturbation nor the run's own choice of timesteps, so that runs which differ in that can be compared.
        """
        x0 = self.cache.latents(draws, source)
        noise = noises.draw(x0.shape, self.noise, source)
        if levels := noise_levels.ranges([self._folder_levels[draw.picture] for draw in draws]):
            timesteps = self.process.within(timesteps, levels.low, levels.high)
        return self._finished(x0, noise, timesteps, draws)

    def _finished(
        self, x0: Tensor, noise: Tensor, timesteps: Tensor, draws: list[Draw], part: slice = slice(None)
    ) -> Batch:
        """The texts of all ``draws`` have one length, whichever ``part`` of them is kept."""
        text, kept = self._texts(self.cache.captions(draws), part), draws[part]
        masks = self.cache.masks(kept, x0)
        counts = None if masks is None else weights.of_masks(masks, self.settings, self.area)
        sizes, shown = self.cache.sizes(kept), self.cache.inpainting(kept)
        return Batch(x0, noise, timesteps, sizes, *text, counts, shown)

    def _texts(self, captions: list[str], part: slice) -> Texts:
        """Those of ``captions`` that are kept, at the length of the longest of all."""
        if self.live_text:
            return Texts({}, captions[part], self.cache.length(captions))
        features = {name: whole[part] for name, whole in self.cache.of_captions(captions).items()}
        return Texts(features, captions[part], 0)

    def _of_folders(self, counts: Tensor | None, draws: list[Draw]) -> Tensor | None:
        """The elements' weights, multiplied by those of their pictures' folders."""
        if not self._weighted:
            return counts
        factors = torch.tensor([self.cache.samples[draw.picture].picture.weight for draw in draws])
        return factors.view(-1, 1, 1, 1) * (1 if counts is None else counts)
