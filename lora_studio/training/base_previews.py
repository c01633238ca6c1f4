"""Previews of the base model alone, kept in the cache: they are the same in every run with the same base model, prompts
and way of drawing, so each is drawn only once.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from PIL.Image import Image
from PIL.PngImagePlugin import PngInfo

from lora_studio import files
from lora_studio.dataset.entry_files import PREVIEWS
from lora_studio.models import Base
from lora_studio.sampling.image_settings import ImageSettings
from lora_studio.training import reading
from lora_studio.training.session import Session

VERSION = 2
"""Changes whenever the base model's images would be drawn differently."""
SHA256, SECONDS = "sha256", "seconds"
"""Texts in a kept image: the hash of its pixels, and how long it took to draw."""


def images(session: Session, draw: Callable[[Sequence[int]], list[Image]]) -> list[Image]:
    """One image for each prompt: those in the cache, and for the others what ``draw`` gives for their numbers, which
    is kept.
    """
    return kept_or_drawn([kept_file(session, index) for index in range(len(session.prompts))], draw)


def kept_or_drawn(paths: Sequence[Path], draw: Callable[[Sequence[int]], list[Image]]) -> list[Image]:
    """The images in these files of the cache; what ``draw`` gives for the numbers of those that are missing is kept."""
    found = {path: image for path in paths if (image := _kept(path)) is not None}
    missing = [index for index, path in enumerate(paths) if path not in found]
    began = time.monotonic()
    drawn = draw(missing) if missing else []
    took = time.monotonic() - began
    for index, image in zip(missing, drawn, strict=True):
        found[paths[index]] = image
        with suppress(OSError):  # the next run draws it again
            files.write(paths[index], png(image, **{SHA256: _digest(image), SECONDS: f"{took / len(missing):.3f}"}))
    return [found[path] for path in paths]


def shared_file(cache: Path, conditions: Sequence[Any]) -> Path:
    """Where an image of a base model is kept that was drawn under these ``conditions``, for all runs."""
    key = json.dumps([VERSION, *conditions], sort_keys=True, default=str)
    return cache / PREVIEWS / f"{hashlib.sha256(key.encode()).hexdigest()}.png"


def model_of(base: Base, quantize: str) -> list[Any]:
    """What decides how a base model draws, among the conditions of ``shared_file``."""
    return [base.checksum, base.fingerprint, base.process.name, base.process.schedule, quantize]


def place_of(device: torch.device) -> list[str]:
    """Where it is drawn, and by which libraries, among the conditions of ``shared_file``."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return [name, *map(version, ("torch", "diffusers", "transformers"))]


def seconds_saved(image: Image) -> float:
    """How long a kept image took to draw; 0 for one that was drawn just now."""
    return float(getattr(image, "text", {}).get(SECONDS, 0))


def kept_file(session: Session, index: int) -> Path:
    """Where the base model's image of one prompt is kept: the name is a hash of everything that decides it, except for
    the last digits of its rounding.
    """
    s, base, machine = session.settings, session.base, session.machine
    image = [
        session.prompts[index],
        session.previews.preview_seed + index,
        ImageSettings.of_previews(session.previews, session.preview_side).model_dump(exclude={"prompt_weights"}),
        *_particular(session, session.prompts[index], s.previews.negative),
    ]
    arithmetic = [machine.precision, str(machine.copies(s.adapter)), s.adapter.reads_text, s.machine.deterministic]
    conditions = [model_of(base, s.machine.quantize), image, place_of(machine.device), arithmetic]
    return shared_file(session.run.cache, conditions)


def _particular(session: Session, *prompts: str) -> list[list[str | int]]:
    """How the prompts are read, where any of them is not simply one chunk."""
    encoder = reading.RunEncoder(session.base, session.settings)
    readings = [list(encoder.reading(prompt, prompts=True)) for prompt in prompts]
    return readings if any(readings) else []


def _kept(path: Path) -> Image | None:
    """The image, or None where there is none or it is damaged in whatever way: it is then drawn again."""
    try:
        image = PIL.Image.open(io.BytesIO(path.read_bytes()))
        notes = getattr(image, "text", {})
        if notes[SHA256] != _digest(image) or not float(notes[SECONDS]) >= 0:
            return None
    except Exception:
        return None
    with suppress(OSError):  # a cache that can only be read is still of use
        os.utime(path)  # when it was last used, for ``entry_files.prune``
    return image


def _digest(image: Image) -> str:
    return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()


def png(image: Image, **notes: str) -> bytes:
    """The image as a PNG file with ``notes`` as its texts."""
    texts, data = PngInfo(), io.BytesIO()
    for name, note in notes.items():
        texts.add_text(name, note)
    image.save(data, "PNG", pnginfo=texts)
    return data.getvalue()
