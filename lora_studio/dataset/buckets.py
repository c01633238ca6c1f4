"""Aspect-ratio buckets: pictures of a similar shape train together, each cropped a little instead of distorted.

A picture is cropped from its middle, or within the crop that the artist chose. After NovelAI's "aspect ratio bucketing"
(2022): sides are multiples of a step, and the area is at most resolution².
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from lora_studio.dataset.items import Bucket, Dataset, Picture
from lora_studio.dataset.preparation import Crop
from lora_studio.dataset.problems import Problem, grouped
from lora_studio.language import tr

MAX_ASPECT = 4.0
"""Highest ratio of a bucket's longer to its shorter side. Longer pictures are cropped to it."""
_AREA_WEIGHT = 0.5
"""Weight of unused pixels, as a share of resolution², against cropped pixels, as a share of the picture."""
_ROUNDING = 1 + 1e-9
"""A crop's sides may be this much longer: what is trimmed to a bucket's shape still fits that bucket."""
_CROP_WARNED = 0.3
_SMALL_WARNED = 0.5


def assign(pictures: Sequence[Picture], resolution: int, step: int, max_upscale: float) -> list[Bucket]:
    """Each picture's bucket: close to its shape, and as large as the resolution and ``max_upscale`` allow; of one with
    a crop, close to the crop's shape.

    Only a picture that is too small for the smallest bucket, one step by one step, is enlarged more; ``problems`` names
    it.
    """
    return [
        _bucket(*_size(picture.width, picture.height, picture.crop), resolution, step, max_upscale)
        for picture in pictures
    ]


def _size(width: int, height: int, crop: Crop | None) -> tuple[float, float]:
    """Pixels of what may be trained on."""
    if crop is None:
        return width, height
    return (crop.right - crop.left) * width * _ROUNDING, (crop.bottom - crop.top) * height * _ROUNDING


@lru_cache(maxsize=65536)
def _bucket(width: float, height: float, resolution: int, step: int, max_upscale: float) -> Bucket:
    sides, shape, unused = _all(resolution, step)
    cost = np.abs(shape - np.log(width / height)) + _AREA_WEIGHT * unused
    cost[(sides[0] > width * max_upscale) | (sides[1] > height * max_upscale)] = np.inf
    best = cost.round(9).argmin()
    return Bucket(*sides[:, best].tolist()) if np.isfinite(cost[best]) else Bucket(step, step)


@lru_cache
def _all(resolution: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All buckets of an allowed area and shape: widths and heights (2, N), ln(width / height) (N,), and
    ln(resolution² / area) (N,).
    """
    one = np.arange(step, max(2 * resolution, step) + 1, step)
    sides = np.stack(np.meshgrid(one, one, indexing="ij")).reshape(2, -1)
    allowed = (sides.prod(axis=0) <= max(resolution, step) ** 2) & (sides.max(axis=0) <= MAX_ASPECT * sides.min(axis=0))
    sides = sides[:, allowed]
    return sides, np.log(sides[0] / sides[1]), np.log(resolution**2 / sides.prod(axis=0))


def snapped(crop: Crop, size: tuple[int, int], resolution: int, step: int, max_upscale: float) -> Crop:
    """The part that is trained on of a picture of ``size`` pixels with this ``crop``: its middle in the shape of its
    bucket. What was snapped stays as it is.
    """
    return _trimmed(crop, *size, _bucket(*_size(*size, crop), resolution, step, max_upscale))


def crop_box(width: int, height: int, bucket: Bucket, crop: Crop | None = None) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the part that is trained on, the middle of the picture or of its ``crop``, in
    pixels of the upright picture.
    """
    if crop:
        left, top, right, bottom = _trimmed(crop, width, height, bucket)
        return left * width, top * height, right * width, bottom * height
    if bucket.width * height >= bucket.height * width:
        margin = (height - width * bucket.height / bucket.width) / 2
        return 0.0, margin, float(width), height - margin
    margin = (width - height * bucket.width / bucket.height) / 2
    return margin, 0.0, width - margin, float(height)


def _trimmed(crop: Crop, width: int, height: int, bucket: Bucket) -> Crop:
    """The middle of ``crop`` in the shape of ``bucket``; ``crop`` itself if it has that shape."""
    left, top, right, bottom = crop
    shape = bucket.width * height / (bucket.height * width)  # share of the width for one of the height
    beside = (right - left - (bottom - top) * shape) / 2
    above = (bottom - top - (right - left) / shape) / 2
    if max(beside, above) < _ROUNDING - 1:
        return crop
    return (
        Crop(left + beside, top, right - beside, bottom)
        if beside > 0
        else Crop(left, top + above, right, bottom - above)
    )


def coarse(resolution: int, step: int) -> str:
    """What a step that is large for the resolution does to pictures, as a sentence; empty if there are buckets of
    several shapes.
    """
    if step > resolution:
        return tr(
            "A bucket step of {step} is more than the resolution of {resolution}: every picture is cropped to a square "
            "of {step} × {step} pixels, which trains {times:.1f} times as long.",
            step=step,
            resolution=resolution,
            times=(step / resolution) ** 2,
        )
    if 2 * step**2 > resolution**2:
        return tr(
            "With a bucket step of {step} and a resolution of {resolution} every picture is cropped to a square of "
            "{step} × {step} pixels.",
            step=step,
            resolution=resolution,
        )
    return ""


def problems(dataset: Dataset, resolution: int, step: int, max_upscale: float) -> list[Problem]:
    """Warnings about pictures that are too small for the resolution, or of which much is cropped without a crop of the
    artist's own.
    """
    small: list[str] = []
    cropped: dict[str, str] = {}
    for picture, bucket in zip(dataset.pictures, assign(dataset.pictures, resolution, step, max_upscale), strict=True):
        name = dataset.name(picture)
        if bucket.width * bucket.height < _SMALL_WARNED * resolution**2:
            small.append(name)
        seen = _seen(picture, bucket)
        if seen < 1 - _CROP_WARNED and not picture.crop:
            cropped[name] = tr(
                "{width} × {height}, middle {seen:.0%} used", width=picture.width, height=picture.height, seen=seen
            )
    wanted = f"{resolution} × {resolution}"
    return grouped(
        "warning",
        "small",
        small,
        "picture is too small for {wanted} and is trained on at a smaller size",
        "pictures are too small for {wanted} and are trained on at a smaller size",
        tr("Use larger originals or a lower resolution."),
        wanted=wanted,
    ) + grouped(
        "warning",
        "cropped",
        cropped,
        "picture is cropped by more than {share:.0%}",
        "pictures are cropped by more than {share:.0%}",
        tr("Move the crop on the page, in Pictures, to train on another part."),
        cropped,
        share=_CROP_WARNED,
    )


def _seen(picture: Picture, bucket: Bucket) -> float:
    """The share of a picture that is trained on."""
    left, top, right, bottom = crop_box(picture.width, picture.height, bucket, picture.crop)
    return (right - left) * (bottom - top) / (picture.width * picture.height)
