"""Images from prompts: the denoising loop.

Every image has a seed of its own, whose noise is drawn on the CPU: it is the same in any batch and on any device, up
to the rounding of the arithmetic.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lora_studio.config.specs import did_you_mean
from lora_studio.diffusion import samplers
from lora_studio.errors import MachineError, SettingsError
from lora_studio.models import Base
from lora_studio.sampling import overflow
from lora_studio.texts.chunks import Reading

PIXELS_AT_ONCE = 2**21
"""A batch holds at most so many: eight images of 512 × 512, two of 1024 × 1024. Halved where memory is short."""
IMAGES_AT_ONCE = 16

OF_THE_PROCESS = -1.0
"""``guidance_rescale`` as the base model's noise process has it."""

Text = Mapping[str, Tensor]


@dataclass(frozen=True)
class Sampling:
    """How images are denoised. ``width`` and ``height`` are in pixels."""

    sampler: str
    steps: int
    guidance: float | tuple[float, ...]
    """One for all, or one for each image."""
    width: int
    height: int
    rescale: float = 0.0
    """φ of ``rescaled``."""


def generate(
    base: Base,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    negative: str = "",
    steps: int = 20,
    guidance: float = 5.0,
    guidance_rescale: float = OF_THE_PROCESS,
    sampler: str = "dpm++",
    width: int = 0,
    height: int = 0,
    cancelled: Callable[[], bool] = lambda: False,
    encode: Callable[[list[str], int], Text] | None = None,
    prompt_weights: bool = True,
) -> list[Image.Image]:
    """One image for each prompt and its seed.

    Args:
        negative: what all images should avoid.
        guidance: how strictly they follow the prompt; up to 1 the negative prompt has no effect, and it takes half the
            time.
        guidance_rescale: φ of ``rescaled``; below 0 that of the base model's noise process.
        width, height: in pixels, multiples of the VAE's scale; 0 takes the base model's own resolution.
        cancelled: asked before every denoising step; True ends the work.
        encode: what gives the features of texts, filled up to a number of chunks, if not the text encoders.
        prompt_weights: read weights and ``BREAK`` in the prompts (``models.prompts``), or every character as it is
            written.

    Returns:
        RGB images in the prompts' order; if it was cancelled, those of the finished batches.

    Raises:
        SettingsError: a size or the sampler is invalid, or a prompt is too long.
        MachineError: not even one image fits into memory.
        AdapterError, ModelError: a picture overflowed (``overflow``).
    """
    how, reading = sampling(base, sampler, steps, guidance, width, height, guidance_rescale), Reading(prompt_weights)
    encode = encode or (lambda texts, length: base.encode_text(texts, reading, length))
    drawn: dict[int, Image.Image] = {}
    for length, members in by_length(base, prompts, negative if guidance > 1 else None, reading).items():
        avoid = encode([negative], length) if guidance > 1 else None

        def draw(rows: slice, length: int = length, members: list[int] = members, avoid: Text | None = avoid) -> Any:
            batch = members[rows]
            text = encode([prompts[index] for index in batch], length)
            return denoise(base, text, avoid, [seeds[index] for index in batch], how, cancelled)

        drawn |= zip(members, in_batches(base, len(members), how, draw), strict=False)
    return [drawn[index] for index in sorted(drawn)]


def by_length(base: Base, prompts: Sequence[str], negative: str | None, reading: Reading) -> dict[int, list[int]]:
    """Chunks of text -> the indices of the prompts that take so many, or whose negative prompt does. Only these share
    a batch, in which a shorter text is filled up: so no image depends on the others.

    Args:
        negative: None is without guidance.
    """
    least = 0 if negative is None else base.read(negative, reading).length
    found: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        found.setdefault(max(least, base.read(prompt, reading).length), []).append(index)
    return found


def sampling(
    base: Base,
    sampler: str,
    steps: int,
    guidance: float,
    width: int,
    height: int,
    guidance_rescale: float = OF_THE_PROCESS,
) -> Sampling:
    """A checked ``Sampling`` for ``base``; a side of 0 becomes its own resolution. Raises SettingsError as ``generate``
    does.
    """
    rescale = base.process.guidance_rescale if guidance_rescale < 0 else guidance_rescale
    sides = _side(base, width, "width"), _side(base, height, "height")
    return Sampling(known_sampler(base, sampler), steps, guidance, *sides, rescale)


def in_batches(base: Base, count: int, how: Sampling, draw: Callable[[slice], Tensor | None]) -> list[Image.Image]:
    """``count`` images, as many at a time as fit; ``draw`` gives the scaled latents of a slice of them, or None if
    it was cancelled: an early end.

    Raises:
        MachineError: not even one image fits into memory.
        AdapterError, ModelError: a picture overflowed.
    """
    at_once = max(1, min(IMAGES_AT_ONCE, PIXELS_AT_ONCE // (how.width * how.height), count))
    images: list[Image.Image] = []
    while len(images) < count:
        try:
            latents = draw(slice(len(images), min(count, len(images) + at_once)))
            if latents is None:
                break
            overflow.require_finite(base, latents)
            for latent in latents:
                pixels = base.decode(latent[None])
                overflow.require_finite(base, pixels)
                images += to_images(pixels)
        except torch.OutOfMemoryError:
            at_once = _halved(at_once, how)
    return images


@torch.no_grad()
def denoise(
    base: Base,
    text: Text,
    avoid: Text | None,
    seeds: Sequence[int],
    how: Sampling,
    cancelled: Callable[[], bool] = lambda: False,
) -> Tensor | None:
    """Scaled latents (B, C, h, w) float32 on the base model's device, or None where it was cancelled.

    Classifier-free guidance (Ho & Salimans 2022, eq. 6, with w + 1 = ``how.guidance``): both answers come from one
    batch of 2B.

    Args:
        text: features of B prompts, as ``Base.encode_text`` gives them.
        avoid: features of one negative prompt for all, or of B; None leaves guidance out.
        seeds: B of them.
    """
    process = base.process
    scheduler = process.scheduler(how.sampler, how.steps, base.device)
    sources = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = (base.channels, how.height // base.scale, how.width // base.scale)
    noise = torch.stack([torch.randn(shape, generator=source) for source in sources]).to(base.device)
    latents = process.first(scheduler, noise)
    both = (
        text
        if avoid is None
        else {name: torch.cat([avoid[name].expand_as(feature), feature]) for name, feature in text.items()}
    )
    strength = torch.tensor(how.guidance, device=base.device).reshape(-1, 1, 1, 1)
    noisy = {"generator": sources} if "generator" in inspect.signature(scheduler.step).parameters else {}
    with _resting(base):
        for t in scheduler.timesteps:
            if cancelled():
                return None
            scaled = process.model_input(scheduler, latents, t)
            answer = base.predict(scaled if avoid is None else torch.cat([scaled, scaled]), t, both)
            if avoid is not None:
                away, towards = answer.chunk(2)
                answer = away + strength * (towards - away)
                if how.rescale:
                    answer = rescaled(answer, towards, how.rescale)
            latents = scheduler.step(answer, t, latents, **noisy, return_dict=False)[0]
    return latents


def rescaled(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """``guided`` (B, C, h, w), for the share φ with the standard deviation of ``conditional``, image by image: strong
    guidance raises it, which overexposes images where the noise ends without any signal (Lin et al. 2024, *Common
    Diffusion Noise Schedules and Sample Steps are Flawed*, §3.4, eqs. 14–16).
    """
    dims = tuple(range(1, guided.ndim))
    scale = conditional.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
    return share * (guided * scale) + (1 - share) * guided


def to_images(pixels: Tensor) -> list[Image.Image]:
    """RGB images of ``pixels`` (B, 3, H, W) in [0, 1]."""
    return [
        Image.fromarray(image.numpy())
        for image in pixels.mul(255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).contiguous()
    ]


@contextmanager
def _resting(base: Base) -> Generator[None]:
    """The denoiser without dropout."""
    training = base.unet.training
    base.unet.eval()
    try:
        yield
    finally:
        base.unet.train(training)


def nearest_side(base: Base, pixels: int) -> int:
    """The side in pixels, nearest to ``pixels``, that ``base`` can draw: a multiple of the VAE's scale."""
    return max(base.scale, round(pixels / base.scale) * base.scale)


def known_sampler(base: Base, sampler: str) -> str:
    """``sampler``, if it can remove the noise of ``base``.

    Raises:
        SettingsError: it cannot, or there is none of that name.
    """
    if sampler in base.process.samplers:
        return sampler
    if sampler in samplers.NAMES:
        what = f"{base.name} is a model of another noise process, which the sampler {sampler!r} cannot remove."
        raise SettingsError(what, where="sampler", do=f"Choose one of: {', '.join(base.process.samplers)}.")
    raise SettingsError(
        f"There is no sampler named {sampler!r}.", where="sampler", do=did_you_mean(sampler, samplers.NAMES)
    )


def _side(base: Base, pixels: int, which: str) -> int:
    pixels = pixels or base.resolution
    if pixels <= 0 or pixels % base.scale:
        raise SettingsError(
            f"The {which} {pixels} is not a multiple of {base.scale}.",
            where=which,
            do=f"Take {nearest_side(base, pixels)}.",
        )
    return pixels


def _halved(at_once: int, how: Sampling) -> int:
    if at_once == 1:
        raise MachineError(
            f"Not even one image of {how.width} × {how.height} pixels fits into the GPU's memory.",
            where="device",
            do="Draw smaller images, or close other programs that use the GPU.",
        ) from None
    torch.cuda.empty_cache()
    return at_once // 2
