"""The denoising loop: from noise, or from a picture with noise added.

Every picture has a seed of its own, whose noise is drawn on the CPU: it is the same in any batch and on any device, up
to the rounding of the arithmetic.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lora_studio.models import Base, inject
from lora_studio.sampling import guided, replay
from lora_studio.sampling.guided import PromptFeatures


@dataclass(frozen=True)
class Sampling:
    """How a batch is denoised. ``width`` and ``height`` are in pixels."""

    sampler: str
    steps: int
    guidance: float | tuple[float, ...]
    """One for all, or one for each picture."""
    width: int
    height: int
    rescale: float = 0.0
    """φ of ``guided.rescaled``."""
    then: Refinement | None = None
    """A second pass."""

    @property
    def last(self) -> Sampling:
        """That of the last pass."""
        return self.then.how if self.then else self

    def guided(self, guidance: tuple[float, ...]) -> Sampling:
        """The same with another guidance for each picture, in both passes."""
        then = self.then and Refinement(self.then.how.guided(guidance), self.then.strength)
        return replace(self, guidance=guidance, then=then)


class Refinement(NamedTuple):
    """A second pass over enlarged latents, from the share ``strength`` of the noise on."""

    how: Sampling
    strength: float


class Start(NamedTuple):
    """What denoising starts from in place of pure noise.

    Attributes:
        latents: (B, C, h, w) or (1, C, h, w), scaled; of a picture their mean.
        strength: the share of the steps that are taken, from noise of that level on. 0 takes none.
        deviation: of a picture's latents, of the same shape: each seed draws its own latents around the mean.
    """

    latents: Tensor
    strength: float
    deviation: Tensor | None = None


class StepTaken(NamedTuple):
    """A step that was taken, the ``number``th of ``count``; ``clean`` gives x₀ (B, C, h, w) as the model expects it."""

    number: int
    count: int
    clean: Callable[[], Tensor]


class Watch(NamedTuple):
    """Who watches the work: ``cancelled`` is asked before every step, and True ends it; ``seen`` is told after it."""

    cancelled: Callable[[], bool] = lambda: False
    seen: Callable[[StepTaken], None] = lambda step: None


UNSEEN = Watch()


@torch.no_grad()
def denoise(
    base: Base,
    shown: PromptFeatures,
    seeds: Sequence[int],
    how: Sampling,
    start: Start | None = None,
    watch: Watch = UNSEEN,
) -> Tensor | None:
    """Scaled latents (B, C, h, w) float32 on the base model's device, or None where it was cancelled.

    With a ``start``, the steps, the noise and its order are those of diffusers'
    ``StableDiffusionImg2ImgPipeline``.

    Args:
        seeds: B of them.
    """
    process = base.process
    scheduler = process.scheduler(how.sampler, how.steps, base.device)
    sources = [torch.Generator().manual_seed(seed) for seed in seeds]
    latents, timesteps = _begin(base, scheduler, how, sources, start)
    given, answers = guided.fixed(base, shown, how.guidance, latents), replay.answers(base)
    noisy = {"generator": sources} if "generator" in inspect.signature(scheduler.step).parameters else {}
    with resting(base), inject.folded(base):
        for number, t in enumerate(timesteps, 1):
            if watch.cancelled():
                return None
            scaled = process.model_input(scheduler, latents, t)
            answer = answers(base, {"noisy": scaled, "timestep": t, **given}, how.rescale)
            latents = scheduler.step(answer, t, latents, **noisy, return_dict=False)[0]
            watch.seen(StepTaken(number, len(timesteps), lambda a=answer, s=scaled, t=t: process.estimate(a, s, t)))
    return latents


def _begin(
    base: Base, scheduler: Any, how: Sampling, sources: Sequence[torch.Generator], start: Start | None
) -> tuple[Tensor, Tensor]:
    """The first latents and the timesteps that are taken from them."""
    process, shape = base.process, (base.channels, how.height // base.scale, how.width // base.scale)
    if start is None:
        return process.first(scheduler, _noise(shape, sources, base)), scheduler.timesteps
    clean = start.latents.to(base.device, torch.float32).expand(len(sources), *shape)
    if start.deviation is not None:
        clean = clean + start.deviation.to(clean) * _noise(shape, sources, base)
    left = process.begin(scheduler, how.steps - min(int(how.steps * start.strength), how.steps))
    return (process.noised(scheduler, clean, _noise(shape, sources, base), left[:1]) if len(left) else clean), left


def _noise(shape: Sequence[int], sources: Sequence[torch.Generator], base: Base) -> Tensor:
    return torch.stack([torch.randn(shape, generator=source) for source in sources]).to(base.device)


@contextmanager
def resting(base: Base) -> Generator[None]:
    """Within it the denoiser has no dropout."""
    training = base.unet.training
    base.unet.eval()
    try:
        yield
    finally:
        base.unet.train(training)
