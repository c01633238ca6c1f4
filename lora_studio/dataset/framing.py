"""What training sees of a picture: the part that fits its bucket, at its size; of an altered copy turned, cropped
closer, or mirrored.

A turned copy shows the largest part of its picture that stays within it. To fill the corners with the picture's
reflection instead would teach seams that no artist drew.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from PIL import Image

from lora_studio.dataset.buckets import crop_box
from lora_studio.dataset.items import PLAIN, Alteration, Bucket
from lora_studio.dataset.preparation import Crop

_OVERSAMPLING = 2
"""Pixels for each one of the result while a picture is turned, at least: interpolation blurs the finest."""
_ROUNDING = 1 - 1e-9
"""A turned part is this much smaller than it could be: beyond the picture's edge all is black."""


class Region(NamedTuple):
    """A rectangle of a picture, in its pixels, before it is turned around its middle."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        return self.right - self.left, self.bottom - self.top


def region(size: tuple[int, int], bucket: Bucket, altered: Alteration = PLAIN, crop: Crop | None = None) -> Region:
    """What is seen of a picture of ``size`` pixels, or of its ``crop``."""
    plain = Region(*crop_box(*size, bucket, crop))
    if not altered.reframes:
        return plain
    (width, height), whole = plain.size, _inner(size, plain, altered.rotation, crop)
    kept, room = whole * (1 - altered.cut), whole * altered.cut / 2
    cos, sin = _cos_sin(altered.rotation)
    x, y = altered.across * room * width, altered.down * room * height
    x, y = (plain.left + plain.right) / 2 + cos * x - sin * y, (plain.top + plain.bottom) / 2 + sin * x + cos * y
    return Region(x - kept * width / 2, y - kept * height / 2, x + kept * width / 2, y + kept * height / 2)


def fit(image: Image.Image, bucket: Bucket, altered: Alteration = PLAIN, crop: Crop | None = None) -> Image.Image:
    """``image`` or its ``crop`` scaled and cropped to exactly ``bucket``, and framed as ``altered`` says."""
    return _framed(image, region(image.size, bucket, altered, crop), bucket, altered, Image.Resampling.LANCZOS)


def fit_mask(
    mask: Image.Image, bucket: Bucket, size: tuple[int, int], altered: Alteration = PLAIN, crop: Crop | None = None
) -> Image.Image:
    """``mask`` (L) framed as ``fit`` does it with its picture, at ``size``: each of its pixels is the mean of those
    that it covers.
    """
    return _framed(mask, region(mask.size, bucket, altered, crop), size, altered, Image.Resampling.BOX)


def _framed(
    image: Image.Image, seen: Region, size: tuple[int, int], altered: Alteration, resample: Image.Resampling
) -> Image.Image:
    fitted = (
        _turned(image, seen, size, altered.rotation).resize(size, resample)
        if altered.rotation
        else image.resize(size, resample, box=seen)
    )
    return fitted.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if altered.flip else fitted


def _turned(image: Image.Image, seen: Region, size: tuple[int, int], degrees: float) -> Image.Image:
    """The part ``seen``, its content turned counter-clockwise, with more pixels than ``size``."""
    (width, height), (cos, sin) = seen.size, _cos_sin(degrees)
    density = max(1.0, _OVERSAMPLING * size[0] / width, _OVERSAMPLING * size[1] / height)
    canvas = math.ceil(width * density), math.ceil(height * density)
    across, down = width / canvas[0], height / canvas[1]
    x = (seen.left + seen.right) / 2 - cos * width / 2 + sin * height / 2
    y = (seen.top + seen.bottom) / 2 - sin * width / 2 - cos * height / 2
    back = cos * across, -sin * down, x, sin * across, cos * down, y
    return image.transform(canvas, Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)


def _inner(size: tuple[int, int], plain: Region, degrees: float, crop: Crop | None) -> float:
    """The largest part of the shape of ``plain`` that, turned around its middle, stays within the picture or its
    ``crop``, as a multiple of ``plain``; at most 1.
    """
    if not degrees:
        return 1.0
    own, (cos, sin), (width, height) = crop or Crop(0, 0, 1, 1), map(abs, _cos_sin(degrees)), plain.size
    across = (own.right - own.left) * size[0] / (width * cos + height * sin)
    down = (own.bottom - own.top) * size[1] / (width * sin + height * cos)
    return min(1.0, across, down) * _ROUNDING


def _cos_sin(degrees: float) -> tuple[float, float]:
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
