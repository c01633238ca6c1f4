"""The sizes that pictures are drawn in: shapes of about the area that a base model was trained at."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from lora_studio.errors import StudioError
from lora_studio.families import registry

SHAPES = {"1:1": 1.0, "4:3": 4 / 3, "3:2": 3 / 2, "16:9": 16 / 9}
"""Width over height."""
OWN = "own"
"""The choice of a size in pixels."""
LEAST, MOST = 64, 2048
"""Pixels of a side that the page takes; a second pass makes more of them."""
_COARSE, _FINE = 64, 8
_SMALL = 256
"""Up to this side, multiples of ``_COARSE`` would be far from the shape."""


class PixelSize(NamedTuple):
    """In pixels."""

    width: int
    height: int

    @property
    def text(self) -> str:
        return f"{self.width} × {self.height}"


def sized(shape: str, upright: bool, side: int) -> PixelSize:
    """A size of the ``shape`` with about the area of a square of ``side`` pixels; its sides are multiples of 64, of 8
    for a small model.

    >>> [sized(shape, False, 1024).text for shape in SHAPES]
    ['1024 × 1024', '1152 × 896', '1280 × 832', '1344 × 768']
    >>> sized("3:2", True, 512), sized("16:9", False, 128)
    (PixelSize(width=448, height=640), PixelSize(width=168, height=96))
    """
    step = _FINE if side <= _SMALL else _COARSE
    root = SHAPES[shape] ** 0.5
    wide, high = (max(step, round(length / step) * step) for length in (side * root, side / root))
    return PixelSize(high, wide) if upright else PixelSize(wide, high)


def shape_of(size: PixelSize, side: int) -> tuple[str, bool] | None:
    """The shape of a size, and whether it is upright; None for a size of no shape."""
    for shape in SHAPES:
        for upright in (False, True):
            if sized(shape, upright, side) == size:
                return shape, upright
    return None


@lru_cache(maxsize=16)
def side_of(base: str, vae: str = "", text_encoders: tuple[str, ...] = ()) -> int:
    """The side of the square that the base model was trained at. No weight is read.

    Raises:
        ModelError: the base model cannot be found or read.
    """
    starter = registry.named("starter")
    if base == "starter" and starter:
        return starter.resolution
    from lora_studio.models import shapes  # torch, which the starter does without

    return shapes.read(base, vae, text_encoders).resolution


@lru_cache(maxsize=16)
def family_of(base: str, vae: str = "", text_encoders: tuple[str, ...] = ()) -> str:
    """The name of the base model's family; empty where it cannot be read, which drawing says."""
    if base == "starter":
        return base
    from lora_studio.models import shapes

    try:
        return shapes.read(base, vae, text_encoders).known.name
    except StudioError:
        return ""
