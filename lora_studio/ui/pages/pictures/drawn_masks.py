"""Masks between the picture's size and the browser's canvas, which is smaller where the picture is large."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from lora_studio import files
from lora_studio.curation import masks
from lora_studio.dataset import masks as mask_files
from lora_studio.dataset.items import Mask, Picture
from lora_studio.ui import images

SIDE = 1024
"""Longest side of the canvas, in pixels."""
COLOUR = (179, 54, 43)
"""What is not learned is painted with."""
_SAME = 6
"""Two grey levels that are no further apart were not painted over."""
_PREFIX = "data:image/png;base64,"
_MOST_BYTES = 8 * 1024**2


def canvas_size(width: int, height: int) -> tuple[int, int]:
    """The canvas of a picture of ``width`` × ``height`` pixels.

    >>> canvas_size(600, 400), canvas_size(4096, 2048)
    ((600, 400), (1024, 512))
    """
    scale = min(1.0, SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def overlay(picture: Picture, outputs: Path) -> str:
    """The address of the picture's mask at the size of the canvas, as colour where it is not learned; empty if it has
    no mask.

    Raises:
        DatasetError: the mask can no longer be read.
    """
    if picture.mask is None:
        return ""
    size = canvas_size(picture.width, picture.height)
    return shown(lambda: _small(masks.of(picture), size), f"{picture.mask.sha256} {size}", outputs)


def shown(made: Callable[[], Image.Image], key: str, outputs: Path) -> str:
    """The address of a mask as colour where it is not learned. It is ``made`` once; ``key`` tells it from others."""
    target = images.folder(outputs) / "masks" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.png"
    if not target.exists():
        files.write(target, _coloured(made()))
    return images.address(target)


def read(data: object, size: tuple[int, int]) -> Image.Image | None:
    """The mask of ``size`` that the browser drew, as a data URL of a PNG; None if it is anything else."""
    if not isinstance(data, str) or not data.startswith(_PREFIX) or len(data) > _MOST_BYTES:
        return None
    try:
        with Image.open(io.BytesIO(base64.b64decode(data[len(_PREFIX) :], validate=True)), formats=["PNG"]) as image:
            return image.convert("L") if image.size == size else None
    except (binascii.Error, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def merged(drawn: Image.Image, before: Image.Image | None, size: tuple[int, int]) -> Image.Image:
    """The mask of ``size`` after it was painted on: what the canvas ``drawn`` changed of the mask ``before`` is taken
    from it, and the rest keeps the detail that the canvas is too small for.
    """
    large = drawn.resize(size, Image.Resampling.BICUBIC)
    if before is None or drawn.size == size:
        return large
    shown = _small(before, drawn.size)
    changed = ImageChops.difference(drawn, shown).point(lambda level: 255 * (level > _SAME))
    changed = changed.filter(ImageFilter.MaxFilter(3)).resize(size, Image.Resampling.NEAREST)
    return Image.composite(large, before, changed)


def written(folder: Path, made: Mapping[str, bytes | None]) -> dict[str, Mask | None]:
    """The masks of pictures in ``folder`` once those that were ``made`` are in their files; None for none."""
    return {
        name: None if data is None else Mask(folder / mask_files.beside(name), hashlib.sha256(data).hexdigest())
        for name, data in made.items()
    }


def _small(mask: Image.Image | None, size: tuple[int, int]) -> Image.Image:
    assert mask is not None
    return mask if mask.size == size else mask.resize(size, Image.Resampling.BOX)


def _coloured(mask: Image.Image) -> bytes:
    """A mask as PNG: ``COLOUR``, the more opaque the less is learned."""
    alpha = 255 - np.asarray(mask)
    pixels = np.dstack([*(np.full_like(alpha, level) for level in COLOUR), alpha])
    out = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(out, "PNG")
    return out.getvalue()
