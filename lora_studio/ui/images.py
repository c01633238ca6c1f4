"""Copies of pictures for the page: re-encoded, bounded, in one folder, the only one that the page serves.

A dataset folder is never served: it may hold anything, and what it holds as a picture may be something else.
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
"""Longest side in pixels: of a preview in the film, of a picture of the dataset, of a preview alone."""

_KEEP_DAYS = 30


def folder(outputs: Path) -> Path:
    """Where the copies lie."""
    return runs.cache_folder(outputs).resolve() / "page"


def uploads(outputs: Path) -> Path:
    """Where what the browser sends lies until a page has taken it."""
    return runs.cache_folder(outputs) / "gradio"


def copy(source: Path, outputs: Path, side: int, opened: Callable[[Path], Image.Image]) -> Path:
    """The copy of the picture ``source`` that is at most ``side`` pixels long, as WebP; made if it is not there yet.

    Args:
        opened: reads ``source`` as an RGB image.

    Raises:
        OSError: the picture cannot be read.
    """
    stat = source.stat()
    key = hashlib.sha256(f"{source.resolve()}|{stat.st_mtime_ns}|{stat.st_size}|{side}".encode()).hexdigest()[:32]
    target = folder(outputs) / key[:2] / f"{key}.webp"
    if not target.exists():
        image = opened(source)
        image.thumbnail((side, side))
        data = io.BytesIO()
        image.save(data, "WEBP", quality=90, method=2)
        files.write(target, data.getvalue())
    return target


def preview(path: Path) -> Image.Image:
    """A preview of our own, as RGB.

    Raises:
        OSError: it is damaged, or no picture.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.convert("RGB")
    except (Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise OSError(str(error)) from error


def inside(folder: Path, relative: str) -> Path | None:
    """The file of ``folder`` that an event names; None if it is gone, or if the name leads out of the folder."""
    path = (folder / relative).resolve()
    return path if path.is_relative_to(folder.resolve()) and os.path.isfile(path) else None


def address(path: Path) -> str:
    """Where the browser finds a copy."""
    return "/gradio_api/file=" + quote(path.as_posix())


def sweep(outputs: Path, now: float | None = None) -> None:
    """Drops copies that were made more than a month ago, which are made again if they are needed, and uploads of then,
    cut off ones too.
    """
    oldest = (now or time.time()) - _KEEP_DAYS * 86400
    for parent, _, names in chain(os.walk(folder(outputs)), os.walk(uploads(outputs))):
        for path in (Path(parent, name) for name in names):
            with suppress(OSError):  # another studio or program has it; the next start tries again
                if path.stat().st_mtime < oldest:
                    files.unlink(path)
