"""Runs of prompt pairs: concept sliders (Gandikota et al. 2023, *Concept Sliders: LoRA Adaptors for Precise Control in
Diffusion Models*, eq. 8) and erased concepts (Gandikota et al. 2023, *Erasing Concepts from Diffusion Models*, eq. 7).

There are no pictures. x_t is what the model with its adapter draws itself, some steps from pure noise; the target is
made of the base model's own answers ε to a pair's prompts at x_t, with w = 1 or −1 the adapter's weight:

    slider: ε(neutral) + w η (ε(towards) − ε(away)), of the prompt that is neutral, at both weights
    erased: ε(plain) − η (ε(concept) − ε(plain)), of the concept's prompt, at weight 1 alone

The second is the first with other prompts. ε stands for whatever the model predicts: velocities and flows are linear in
what the noise is, as it is itself, so that the same sum of answers moves the picture in the same direction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from lora_studio.config.settings import Settings
from lora_studio.dataset.cache import Cache
from lora_studio.dataset.items import PromptPair
from lora_studio.diffusion.process import Process
from lora_studio.models import Base, inject
from lora_studio.sampling import guided
from lora_studio.sampling.denoise import resting
from lora_studio.sampling.generate import nearest_side
from lora_studio.sampling.guided import PromptFeatures
from lora_studio.training import seeds
from lora_studio.training.batches import Batch, BatchSource, Contrast, Texts

GUIDANCE = 3.0
"""That x_t is drawn with, as in the code of both papers; a distilled model's own where the base model is one."""
WEIGHTS = (1.0, -1.0)
"""Of the adapter, in the order of ``Batch.targets``."""

Read = Callable[[Texts], Mapping[str, Tensor]]


def texts_of(pairs: Sequence[PromptPair]) -> list[str]:
    """The prompts whose features a run of ``pairs`` needs."""
    return list(dict.fromkeys(["", *(prompt for pair in pairs for prompt in pair.prompts)]))


class PairBatches(BatchSource):
    """The batches of a run of prompt pairs: noise, and how far it is denoised. In an epoch every pair comes up once.

    Args:
        cache: has the features of ``texts_of`` as captions'.
        process: the base model's.
        shape: (C, h, w) of the latents.
        part: the samples of each batch to keep, where other processes take the rest.
        pinned: as of ``BatchSource``.
    """

    def __init__(
        self,
        pairs: Sequence[PromptPair],
        cache: Cache,
        process: Process,
        settings: Settings,
        shape: tuple[int, int, int],
        part: slice = slice(None),
        pinned: bool = False,
    ):
        super().__init__(pinned)
        self.pairs, self.cache, self.shape, self.part = pairs, cache, shape, part
        self.seed, self.batch = settings.run.seed, settings.optimizer.batch
        self.timesteps = process.scheduler(_sampler(process), settings.slider.slider_steps, "cpu").timesteps
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def drawn(self, number: int) -> Batch:
        source = seeds.generator(self.seed, seeds.NOISE, number)
        # noise, steps: in another order it would be another run
        noise = torch.randn(self.batch, *self.shape, generator=source)[self.part]
        steps = int(torch.randint(len(self.timesteps), (), generator=source))
        pairs = [self.pairs[index] for index in self._indices(number)][self.part]
        both = self.cache.of_captions([*(pair.trained for pair in pairs), *[""] * len(pairs)])
        own, empty = ({name: one[half] for name, one in both.items()} for half in _halves(len(pairs)))
        texts = {"empty": Texts(empty, [""] * len(pairs), 0)}
        for name in ("neutral", "towards", "away"):
            texts[name] = self._texts([getattr(pair, name) for pair in pairs])
        return Batch(
            x0=torch.zeros_like(noise),
            noise=noise,
            timesteps=self.timesteps[steps].repeat(len(pairs)),
            sizes=self._sizes(len(pairs)),
            text=own,
            captions=[pair.trained for pair in pairs],
            weights=torch.tensor([pair.weight for pair in pairs]).view(-1, 1, 1, 1),
            contrast=Contrast(texts, 1.0 if self.pairs[0].erases else WEIGHTS[number % 2], steps),
        )

    def _texts(self, prompts: list[str]) -> Texts:
        return Texts(self.cache.of_captions(prompts), prompts, 0)

    def _sizes(self, count: int) -> Tensor:
        """(B, 6) float32: whole pictures of the latents' size, as ``Base.whole``."""
        height, width = (side * self.cache.encoder.scale for side in self.shape[1:])
        return torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32).repeat(count, 1)

    def _indices(self, number: int) -> list[int]:
        """Which pairs batch ``number`` has; a batch may reach into the next epoch."""
        places = (divmod(number * self.batch + row, len(self.pairs)) for row in range(self.batch))
        return [self._epoch(epoch)[place] for epoch, place in places]

    def _shuffled(self, epoch: int) -> list[int]:
        return torch.randperm(len(self.pairs), generator=seeds.generator(self.seed, seeds.PAIRS, epoch)).tolist()


def batches(
    pairs: Sequence[PromptPair], cache: Cache, base: Base, settings: Settings, part: slice, pinned: bool
) -> PairBatches:
    """The batches of a run on ``base``, at its resolution."""
    side = nearest_side(base, settings.dataset.resolution or base.resolution) // base.scale
    return PairBatches(pairs, cache, base.process, settings, (base.channels, side, side), part, pinned)


@torch.no_grad()
def drawn(base: Base, batch: Batch, settings: Settings, read: Read) -> Batch:
    """``batch`` with x_t as its noise, and with the targets there. Kernels that follow read nothing of the base model,
    so a recorded step begins with it.

    Args:
        batch: of prompt pairs, on the base model's device.
        read: the features of texts.
    """
    contrast = batch.contrast
    assert contrast is not None, "a batch of pictures has targets of its own"
    with resting(base):
        with inject.scaled(base, contrast.weight):
            noisy = _denoised(base, batch, contrast, settings.slider.slider_steps, read)
        with inject.without_adapter(base):
            made = targets(base, batch._replace(noise=noisy), contrast, settings.slider.slider_strength, read)
    return batch._replace(noise=noisy, targets=made, contrast=None)


def losses(base: Base, batch: Batch, text: Mapping[str, Tensor], which: int) -> Tensor:
    """The weighted squared error of each sample, with the adapter at weight ``WEIGHTS[which]``.

    Args:
        batch: as ``drawn`` gave it, or of ``visual_sliders``.
        text: the features of its prompts.

    Returns:
        (B,) float32, differentiable.
    """
    assert batch.targets is not None and batch.weights is not None, "drawn has not been called"
    shown = batch.noise if batch.shown is None else batch.shown[which]
    predicted = base.predict(shown, batch.timesteps, text, batch.sizes).float()
    return ((predicted - batch.targets[which]).square() * batch.weights).mean(dim=(1, 2, 3))


def _denoised(base: Base, batch: Batch, contrast: Contrast, steps: int, read: Read) -> Tensor:
    """x_t (B, C, h, w) float32, as the denoiser is shown it."""
    process, guidance = base.process, base.distilled.kind.guidance if base.distilled else GUIDANCE
    scheduler = process.scheduler(_sampler(process), steps, base.device)
    latents = process.first(scheduler, batch.noise)
    prompts = read(Texts(batch.text, batch.captions, batch.length))
    shown = PromptFeatures(prompts, read(contrast.texts["empty"]) if guidance > 1 else None)
    given = guided.fixed(base, shown, guidance, latents)
    for t in scheduler.timesteps[: contrast.steps]:
        inputs = {"noisy": process.model_input(scheduler, latents, t), "timestep": t, **given}
        answer = guided.answer(base, inputs, process.guidance_rescale)
        latents = scheduler.step(answer, t, latents, return_dict=False)[0]
    return process.model_input(scheduler, latents, scheduler.timesteps[contrast.steps])


def targets(base: Base, batch: Batch, contrast: Contrast, strength: float, read: Read) -> Tensor:
    """(D, B, C, h, w) float32: as ``Batch.targets``, by the base model's answers at ``batch.noise``."""
    answers: dict[tuple[str, ...], Tensor] = {}

    def answer(name: str) -> Tensor:
        texts = contrast.texts[name]
        key = tuple(texts.captions)
        if key not in answers:  # to erase, the plain prompt is two of the three
            answers[key] = base.predict(batch.noise, batch.timesteps, read(texts), batch.sizes).float()
        return answers[key]

    neutral, direction = answer("neutral"), strength * (answer("towards") - answer("away"))
    erases = contrast.texts["neutral"].captions != batch.captions
    return torch.stack([neutral + weight * direction for weight in WEIGHTS[: 1 if erases else 2]])


def _sampler(process: Process) -> str:
    """The one without random numbers of its own."""
    return "ddim" if "ddim" in process.samplers else "euler"


def _halves(count: int) -> tuple[slice, slice]:
    return slice(count), slice(count, None)
