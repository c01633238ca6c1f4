"""Aspect-ratio buckets: pictures of a similar shape train together, each cropped a little instead of distorted.

After NovelAI's "aspect ratio bucketing" (2022): sides are multiples of a step, and the area is at most resolution².
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from lora_studio.dataset.items import Bucket, Dataset, Picture
from lora_studio.dataset.problems import Problem, grouped

MAX_ASPECT = 4.0
"""Highest ratio of a bucket's longer to its shorter side. Longer pictures are cropped to it."""
_AREA_WEIGHT = 0.5
"""Weight of unused pixels, as a share of resolution², against cropped pixels, as a share of the picture."""
_CROP_WARNED = 0.3
_SMALL_WARNED = 0.5


def assign(pictures: Sequence[Picture], resolution: int, step: int, max_upscale: float) -> list[Bucket]:
    """Each picture's bucket: close to its shape, and as large as the resolution and ``max_upscale`` allow.

    Only a picture that is too small for the smallest bucket, one step by one step, is enlarged more; ``problems`` names
    it.
    """
    return [_bucket(picture.width, picture.height, resolution, step, max_upscale) for picture in pictures]


@lru_cache(maxsize=65536)
def _bucket(width: int, height: int, resolution: int, step: int, max_upscale: float) -> Bucket:
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


def crop_box(width: int, height: int, bucket: Bucket) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the part that is trained on, the middle, in pixels of the upright picture."""
    if bucket.width * height >= bucket.height * width:
        margin = (height - width * bucket.height / bucket.width) / 2
        return 0.0, margin, float(width), height - margin
    margin = (width - height * bucket.width / bucket.height) / 2
    return margin, 0.0, width - margin, float(height)


def fit(image: Image.Image, bucket: Bucket, flip: bool = False) -> Image.Image:
    """``image`` scaled and cropped to exactly ``bucket``, mirrored left to right if ``flip``."""
    fitted = image.resize(bucket, Image.Resampling.LANCZOS, box=crop_box(image.width, image.height, bucket))
    return fitted.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else fitted


def fit_mask(mask: Image.Image, bucket: Bucket, size: tuple[int, int], flip: bool = False) -> Image.Image:
    """``mask`` (L) cropped and mirrored as ``fit`` does it with its picture, at ``size``: each of its pixels is the
    mean of those that it covers.
    """
    fitted = mask.resize(size, Image.Resampling.BOX, box=crop_box(mask.width, mask.height, bucket))
    return fitted.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else fitted


def problems(dataset: Dataset, resolution: int, step: int, max_upscale: float) -> list[Problem]:
    """Warnings about pictures that are too small for the resolution, or so long that much of them is cropped."""
    small: list[str] = []
    found = []
    for picture, bucket in zip(dataset.pictures, assign(dataset.pictures, resolution, step, max_upscale), strict=True):
        name = dataset.name(picture)
        if bucket.width * bucket.height < _SMALL_WARNED * resolution**2:
            small.append(name)
        left, top, right, bottom = crop_box(picture.width, picture.height, bucket)
        seen = (right - left) * (bottom - top) / (picture.width * picture.height)
        if seen < 1 - _CROP_WARNED:
            size = f"{picture.width} × {picture.height}"
            part = (
                f"pixels {left:.0f} to {right:.0f} of its width"
                if left
                else f"pixels {top:.0f} to {bottom:.0f} of its height"
            )
            found.append(
                Problem(
                    "warning",
                    "cropped",
                    name,
                    f"{size} is far from square: only its middle {seen:.0%} is trained on ({part}).",
                    "Crop it yourself if you want another part.",
                )
            )
    wanted = f"{resolution} × {resolution}"
    return (
        grouped(
            "warning",
            "small",
            small,
            f"picture is too small for {wanted} and is trained on at a smaller size",
            f"pictures are too small for {wanted} and are trained on at a smaller size",
            "Use larger originals or a lower resolution.",
        )
        + found
    )
