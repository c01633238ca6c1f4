"""Images drawn while training: the same prompts and seeds each time, and one of each without the adapter.

The latter are the same in every run with the same base model, prompts and way of drawing, so each is drawn only once
and kept in the cache.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path

import PIL.Image
from PIL.Image import Image
from PIL.PngImagePlugin import PngInfo

from lora_studio import files
from lora_studio.dataset.cache import PREVIEWS
from lora_studio.errors import StudioError
from lora_studio.events import Event, PreviewReady, Warned
from lora_studio.models import Base, inject
from lora_studio.sampling.generate import generate
from lora_studio.training import devices, memory
from lora_studio.training.session import Session

VERSION = 1
"""Changes whenever the base model's pictures would be drawn otherwise."""
_SHA256, _SECONDS = "sha256", "seconds"
"""Texts in a kept picture: the sum of its pixels, and how long it took to draw."""


def draw(session: Session, base: bool = False) -> Generator[Event, None, float]:
    """Draws, saves and announces one image a prompt. A preview that fails is a warning; training goes on.

    Args:
        base: draw without the adapter, for comparison.

    Returns:
        The seconds that it was spared by pictures that were kept.

    Raises:
        RuntimeError: the device was lost, on which nothing goes on.
    """
    spared = 0.0
    try:
        for index, (prompt, image) in enumerate(zip(session.prompts, _images(session, base), strict=True)):
            spared += float(getattr(image, "text", {}).get(_SECONDS, 0))
            yield _save(session, index, prompt, image, base)
    except (StudioError, RuntimeError, OSError) as error:
        if devices.lost(error):
            raise
        yield Warned(
            what=f"The previews at step {session.step} could not be drawn: {error}",
            where="previews",
            do="Training goes on. Fewer or smaller previews need less memory.",
        )
    return spared


def _save(session: Session, index: int, prompt: str, image: Image, base: bool) -> PreviewReady:
    path = session.run.preview_file(session.step, index, base)
    seed = session.settings.previews.preview_seed + index
    files.write(path, _png(image, parameters=_recipe(session, prompt, seed)))
    return PreviewReady(
        step=session.step, index=index, prompt=prompt, seed=seed, path=session.run.relative(path), base=base
    )


def _images(session: Session, base: bool) -> list[Image]:
    """Of the base model alone those that no run has drawn before are drawn, and kept; the others are there."""
    if not base:
        return _drawn(session, range(len(session.prompts)), nullcontext())
    paths = [_kept_file(session, index) for index in range(len(session.prompts))]
    images = {path: image for path in paths if (image := _kept(path)) is not None}
    missing = [index for index, path in enumerate(paths) if path not in images]
    began = time.monotonic()
    drawn = _drawn(session, missing, inject.without_adapter(session.base)) if missing else []
    took = time.monotonic() - began
    for index, image in zip(missing, drawn, strict=True):
        images[paths[index]] = image
        with suppress(OSError):  # the next run draws it again
            files.write(paths[index], _png(image, **{_SHA256: _digest(image), _SECONDS: f"{took / len(missing):.3f}"}))
    return [images[path] for path in paths]


def _drawn(session: Session, which: Sequence[int], within: AbstractContextManager) -> list[Image]:
    """Pictures of the prompts with these numbers: each has its own seed, so it is the same whichever others are drawn."""
    settings, side = session.settings, _side(session)
    prompts, seeds = (
        [session.prompts[index] for index in which],
        [settings.previews.preview_seed + index for index in which],
    )
    session.stepper.make_room(_room(session.base, side))
    try:
        with session.settled(), within:
            return generate(
                session.base,
                prompts,
                seeds,
                encode=session.features,
                negative=settings.previews.negative,
                steps=settings.previews.preview_steps,
                guidance=settings.previews.guidance,
                sampler=settings.previews.sampler,
                width=side,
                height=side,
            )
    finally:
        session.base.encoders_to("cpu")


def _side(session: Session) -> int:
    """Of a preview, in pixels."""
    return session.settings.dataset.resolution or session.base.resolution


def _kept_file(session: Session, index: int) -> Path:
    """Where the base model's picture of one prompt is kept: the name is a hash of everything that decides it, but for
    the last digits of its rounding.
    """
    s, base, machine = session.settings, session.base, session.machine
    model = [base.checksum, base.fingerprint, base.process.name, base.process.schedule, s.machine.quantize]
    picture = [
        session.prompts[index],
        s.previews.negative,
        s.previews.preview_seed + index,
        s.previews.preview_steps,
        s.previews.guidance,
        s.previews.sampler,
        _side(session),
    ]
    place = [
        machine.name if machine.device.type == "cuda" else machine.device.type,
        *map(version, ("torch", "diffusers", "transformers")),
    ]
    arithmetic = [machine.precision, str(machine.copies(s.adapter)), s.adapter.train_text, s.machine.deterministic]
    key = json.dumps([VERSION, model, picture, place, arithmetic], sort_keys=True, default=str)
    return session.run.cache / PREVIEWS / f"{hashlib.sha256(key.encode()).hexdigest()}.png"


def _kept(path: Path) -> Image | None:
    """The picture, or None where there is none or it is damaged in whatever way: it is then drawn again."""
    try:
        image = PIL.Image.open(io.BytesIO(path.read_bytes()))
        if image.text[_SHA256] != _digest(image) or not float(image.text[_SECONDS]) >= 0:
            return None
    except Exception:
        return None
    with suppress(
        OSError
    ):  # when it was last used, as ``cache.prune`` asks; a folder that can only be read serves all the same
        os.utime(path)
    return image


def _digest(image: Image) -> str:
    return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()


def _png(image: Image, **notes: str) -> bytes:
    """The picture as a PNG file with ``notes`` as its texts."""
    texts, data = PngInfo(), io.BytesIO()
    for name, note in notes.items():
        texts.add_text(name, note)
    image.save(data, "PNG", pnginfo=texts)
    return data.getvalue()


def _room(base: Base, side: int) -> int:
    """Bytes that the VAE takes on the device to decode one whole picture."""
    return round(
        memory.RESERVED
        * (sum(parameter.nbytes for parameter in base.vae.parameters()) + side * side * memory.decoded(base.vae.config))
    )


def _recipe(session: Session, prompt: str, seed: int) -> str:
    """The line that image viewers of this field show, in A1111's order."""
    s = session.settings
    negative = f"\nNegative prompt: {s.previews.negative}" if s.previews.negative else ""
    return f"{prompt}{negative}\nSteps: {s.previews.preview_steps}, Sampler: {s.previews.sampler}, CFG scale: {s.previews.guidance}, Seed: {seed}, Model: {session.base.name}, LoRA step: {session.step}"


class PreviewTimer:
    """How long a round of previews takes, for the ETA."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, events: Generator[Event, None, float]) -> Iterator[Event]:
        """Passes ``events`` of ``draw`` on and remembers how long they took, or would have taken."""
        began = time.monotonic()
        spared = yield from events
        self.seconds = time.monotonic() - began + spared
