"""Copies of images for the page: re-encoded, of limited size, in the only folder that the page serves.

A dataset folder is never served: it may hold anything, and a file with a picture's name may be something else.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from lora_studio import files, runs

THUMBNAIL, PICTURE, FULL = 256, 512, 1536
"""Longer side in pixels: of a preview in the filmstrip, of a picture of the dataset, of a single preview."""

_KEEP_DAYS = 30


def folder(outputs: Path) -> Path:
    """The folder of the copies."""
    return runs.cache_folder(outputs).resolve() / "page"


def uploads(outputs: Path) -> Path:
    """The folder of uploads until a page has processed them."""
    return runs.cache_folder(outputs) / "gradio"


def place(source: Path, outputs: Path, side: int) -> Path:
    """Where ``copy`` has, or will have, its copy.

    Raises:
        OSError: the image is gone.
    """
    stat = source.stat()
    key = hashlib.sha256(f"{source.resolve()}|{stat.st_mtime_ns}|{stat.st_size}|{side}".encode()).hexdigest()[:32]
    return folder(outputs) / key[:2] / f"{key}.webp"


def copy(source: Path, outputs: Path, side: int, opened: Callable[[Path], Image.Image]) -> Path:
    """The WebP copy of the image ``source`` with a longer side of at most ``side`` pixels, created if necessary.

    Args:
        opened: reads ``source`` as an RGB image.

    Raises:
        OSError: the image cannot be read.
    """
    target = place(source, outputs, side)
    if not target.exists():
        image = opened(source)
        image.thumbnail((side, side))
        data = io.BytesIO()
        image.save(data, "WEBP", quality=90, method=2)
        files.write(target, data.getvalue())
    return target


def preview(path: Path) -> Image.Image:
    """A preview that the studio saved, as RGB.

    Raises:
        OSError: it is damaged, or no image.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.convert("RGB")
    except (Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise OSError(str(error)) from error


def inside(folder: Path, relative: str) -> Path | None:
    """The file in ``folder`` that an event names; None if it does not exist or is outside the folder."""
    path = (folder / relative).resolve()
    return path if path.is_relative_to(folder.resolve()) and os.path.isfile(path) else None


def address(path: Path) -> str:
    """The URL of a copy."""
    return "/gradio_api/file=" + quote(path.as_posix())


def sweep(outputs: Path, now: float | None = None) -> None:
    """Deletes copies and uploads older than a month. Copies are created again when they are needed."""
    oldest = (now or time.time()) - _KEEP_DAYS * 86400
    for parent, _, names in chain(os.walk(folder(outputs)), os.walk(uploads(outputs))):
        for path in (Path(parent, name) for name in names):
            with suppress(OSError):  # another studio or program has it; the next start tries again
                if path.stat().st_mtime < oldest:
                    files.unlink(path)
