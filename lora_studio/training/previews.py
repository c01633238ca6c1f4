"""Images drawn while training: the same prompts and seeds each time, and one of each without the adapter."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from PIL.Image import Image

from lora_studio import files
from lora_studio.errors import StudioError
from lora_studio.events import Event, PreviewReady
from lora_studio.language import tr
from lora_studio.models import Base, inject
from lora_studio.sampling.generate import generate
from lora_studio.sampling.image_settings import ImageSettings
from lora_studio.training import base_previews, devices, exceptions, memory
from lora_studio.training.session import Session


def draw(session: Session, base: bool = False) -> Generator[Event, None, float]:
    """Draws, saves and announces one image for each prompt. A preview that fails is a warning; training continues.

    Args:
        base: draw without the adapter, for comparison.

    Returns:
        The seconds that were saved by images from the cache.

    Raises:
        RuntimeError: the device was lost, so that nothing can continue.
    """
    saved = 0.0
    try:
        for index, (prompt, image) in enumerate(zip(session.prompts, _images(session, base), strict=True)):
            saved += base_previews.seconds_saved(image)
            yield _save(session, index, prompt, image, base)
    except (StudioError, RuntimeError, OSError, MemoryError) as error:
        if devices.lost(error):
            raise
        what = tr("The previews of step {step} could not be drawn", step=session.step)
        yield exceptions.skipped(error, what, tr("previews"), session.run.previews)
    return saved


def _save(session: Session, index: int, prompt: str, image: Image, base: bool) -> PreviewReady:
    path = session.run.preview_file(session.step, index, base)
    seed = session.previews.preview_seed + index
    files.write(path, base_previews.png(image, parameters=_recipe(session, prompt, seed)))
    return PreviewReady(
        step=session.step, index=index, prompt=prompt, seed=seed, path=session.run.relative(path), base=base
    )


def _images(session: Session, base: bool) -> list[Image]:
    if not base:
        return _drawn(session, range(len(session.prompts)), nullcontext())
    return base_previews.images(session, lambda missing: _drawn(session, missing, inject.without_adapter(session.base)))


def _drawn(session: Session, which: Sequence[int], within: AbstractContextManager) -> list[Image]:
    """Images of the prompts with these numbers. Each has a seed of its own, so it does not depend on the others."""
    settings, side = session.previews, session.preview_side
    session.stepper.make_room(decoding(session.base, side))
    try:
        with session.as_exported(), within:
            return generate(
                session.base,
                [session.prompts[index] for index in which],
                [settings.preview_seed + index for index in which],
                ImageSettings.of_previews(settings, side),
                encode=session.features,
                cancelled=session.stopping_early,
            )
    finally:
        session.base.encoders_to("cpu")


def decoding(base: Base, side: int) -> int:
    """Bytes that the VAE needs on the device to decode one whole image of ``side`` pixels."""
    weights = sum(parameter.nbytes for parameter in base.vae.parameters())
    return round(memory.RESERVED * (weights + side * side * memory.decoded(base.vae.config)))


def _recipe(session: Session, prompt: str, seed: int) -> str:
    """The line that image viewers of this field show, in A1111's order."""
    s = session.previews
    negative = f"\nNegative prompt: {s.negative}" if s.negative else ""
    clip_skip = f"Clip skip: {session.base.clip_skip}, " if session.base.clip_skip > 1 else ""
    return (
        f"{prompt}{negative}\nSteps: {s.preview_steps}, Sampler: {s.sampler}, CFG scale: {s.guidance}, Seed: {seed}, "
        f"Model: {session.base.name}, {clip_skip}LoRA step: {session.step}"
    )


class PreviewTimer:
    """How long a round of previews takes, for the time left."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, events: Generator[Event, None, float]) -> Iterator[Event]:
        """Passes on the ``events`` of ``draw`` and notes how long they took, or would have taken without the cache."""
        began = time.monotonic()
        saved = yield from events
        self.seconds = time.monotonic() - began + saved
