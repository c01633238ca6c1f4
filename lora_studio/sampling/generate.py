"""Pictures from prompts: batches that fit into memory, their passes, and the pixels of their latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lora_studio.config.specs import did_you_mean
from lora_studio.diffusion import samplers
from lora_studio.errors import MachineError, SettingsError
from lora_studio.language import tr
from lora_studio.models import Base
from lora_studio.sampling import kept_texts, overflow
from lora_studio.sampling.denoise import UNSEEN, Refinement, Sampling, Start, StepTaken, Watch
from lora_studio.sampling.guided import PromptFeatures, Text
from lora_studio.sampling.image_settings import ImageSettings
from lora_studio.sampling.passes import latents_of
from lora_studio.texts.chunks import Reading

PIXELS_AT_ONCE = 2**21
"""A batch holds at most so many: eight images of 512 × 512, two of 1024 × 1024. Halved where memory is short."""
IMAGES_AT_ONCE = 16

DEFAULT = ImageSettings()


def generate(
    base: Base,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: ImageSettings = DEFAULT,
    *,
    start: Start | None = None,
    cancelled: Callable[[], bool] = UNSEEN.cancelled,
    encode: Callable[[list[str], int], Text] | None = None,
    seen: Callable[[StepTaken], None] = UNSEEN.seen,
) -> list[Image.Image]:
    """One image for each prompt and its seed.

    Args:
        start: what all of them start from in place of noise; see ``start.from_image``.
        cancelled: asked before every denoising step; True ends the work.
        encode: what gives the features of texts, filled up to a number of chunks, if not the text encoders.
        seen: told after every denoising step of a batch.

    Returns:
        RGB images in the prompts' order; if it was cancelled, those of the finished batches.

    Raises:
        SettingsError: a size or the sampler is invalid, or a prompt is too long.
        MachineError: not even one image fits into memory.
        AdapterError, ModelError: a picture overflowed (``overflow``).
    """
    how, reading = sampling(base, settings), Reading(settings.prompt_weights)
    prompts = fronted(base, prompts)
    encode = encode or (lambda texts, length: kept_texts.encode(base, texts, reading, length))
    negative = settings.negative if settings.guidance > 1 else None
    drawn: dict[int, Image.Image] = {}
    for length, members in by_length(base, prompts, negative, reading).items():
        avoid = None if negative is None else encode([negative], length)

        def draw(rows: slice, length: int = length, members: list[int] = members, avoid: Text | None = avoid) -> Any:
            batch = members[rows]
            shown = PromptFeatures(encode([prompts[index] for index in batch], length), avoid)
            return latents_of(base, shown, [seeds[index] for index in batch], how, start, Watch(cancelled, seen))

        drawn |= zip(members, in_batches(base, len(members), how.last, draw), strict=False)
    return [drawn[index] for index in sorted(drawn)]


def fronted(base: Base, prompts: Sequence[str]) -> list[str]:
    """``prompts`` with the learned words before them that go before every prompt, as training put them there; negative
    prompts have none.
    """
    return [base.words.fronted(prompt, base.weights_of(row)) for row, prompt in enumerate(prompts)]


def by_length(base: Base, prompts: Sequence[str], negative: str | None, reading: Reading) -> dict[int, list[int]]:
    """Chunks of text -> the indices of the prompts that take so many, or whose negative prompt does. Only these share
    a batch, in which a shorter text is filled up: so no image depends on the others.

    Args:
        negative: None is without guidance.
    """
    found: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        texts = [prompt] if negative is None else [prompt, negative]
        found.setdefault(max(base.read(text, reading, index).length for text in texts), []).append(index)
    return found


def sampling(base: Base, settings: ImageSettings) -> Sampling:
    """``settings`` checked for ``base``, with its own resolution and guidance rescale where they leave that open.
    Raises SettingsError as ``generate`` does.
    """
    rescale = base.process.guidance_rescale if settings.guidance_rescale < 0 else settings.guidance_rescale
    width, height = _side(base, settings.width, "width"), _side(base, settings.height, "height")
    sampler = known_sampler(base, settings.sampler)
    first = Sampling(sampler, settings.steps, settings.guidance, width, height, rescale)
    if (hires := settings.hires) is None:
        return first
    sides = {name: nearest_side(base, getattr(first, name) * hires.scale) for name in ("width", "height")}
    return replace(first, then=Refinement(replace(first, steps=hires.steps or first.steps, **sides), hires.strength))


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
            images += decoded(base, latents)
        except torch.OutOfMemoryError:
            if not base.make_room():
                at_once = _halved(at_once, how)
    return images


def decoded(base: Base, latents: Tensor) -> list[Image.Image]:
    """RGB images of scaled latents (B, C, h, w). One after another, unless the base model says otherwise: the VAE needs
    the most memory of all.

    Raises:
        AdapterError, ModelError: a picture overflowed.
    """
    overflow.require_finite(base, latents)
    images: list[Image.Image] = []
    height, width = (side * base.scale for side in latents.shape[-2:])
    for some in latents.split(max(1, base.decode_at_once // (height * width))):
        pixels = base.decode(some)
        overflow.require_finite(base, pixels)
        images += to_images(pixels)
    return images


def to_images(pixels: Tensor) -> list[Image.Image]:
    """RGB images of ``pixels`` (B, 3, H, W) in [0, 1]."""
    return [
        Image.fromarray(image.numpy())
        for image in pixels.mul(255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).contiguous()
    ]


def nearest_side(base: Base, pixels: float) -> int:
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
        what = tr(
            "{name} is a model of another noise process, which the sampler {sampler!r} cannot remove.",
            name=base.name,
            sampler=sampler,
        )
        raise SettingsError(
            what, where="sampler", do=tr("Choose one of: {names}.", names=", ".join(base.process.samplers))
        )
    raise SettingsError(
        tr("There is no sampler named {sampler!r}.", sampler=sampler),
        where="sampler",
        do=did_you_mean(sampler, samplers.NAMES),
    )


_SIDES = {"width": tr("width"), "height": tr("height")}


def _side(base: Base, pixels: int, which: str) -> int:
    pixels = pixels or base.resolution
    if pixels <= 0 or pixels % base.scale:
        raise SettingsError(
            tr(
                "The {side} {pixels} is not a multiple of {scale}.", side=_SIDES[which], pixels=pixels, scale=base.scale
            ),
            where=which,
            do=tr("Take {pixels}.", pixels=nearest_side(base, pixels)),
        )
    return pixels


def _halved(at_once: int, how: Sampling) -> int:
    if at_once == 1:
        raise MachineError(
            tr(
                "Not even one image of {width} × {height} pixels fits into the GPU's memory.",
                width=how.width,
                height=how.height,
            ),
            where="device",
            do=tr("Draw smaller images, or close other programs that use the GPU."),
        ) from None
    torch.cuda.empty_cache()
    return at_once // 2
