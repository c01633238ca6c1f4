"""Makes masks of pictures: from their transparency, from a box around a signature or watermark, from a segmentation
model, or from the masks that they have.

A mask is an image of mode L and of the size of its upright picture: white is learned, black is not.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps

from lora_studio.dataset import pictures
from lora_studio.dataset.items import Dataset, Picture
from lora_studio.dataset.masks import BLACK
from lora_studio.dataset.preparation import Crop
from lora_studio.language import tr

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
CORNERS: tuple[Corner, ...] = ("top-left", "top-right", "bottom-left", "bottom-right")
WHITE = 255
_ROUNDING = 1e-6
"""Pixels by which the edge of a box may miss a whole one."""

Source = Callable[[Picture], Image.Image | None]
"""The mask of a picture, before it is finished; None where it gets none."""


class Segmenter(Protocol):
    """What tells the subject of a picture from its background: ``vision.segmenters``."""

    def mask(self, picture: Image.Image) -> Image.Image:
        """White where the subject is, in mode L and the size of ``picture``."""
        ...


class Extent(NamedTuple):
    """Width and height of a box: ``shares`` of the picture's, above 0 and up to 1, or pixels."""

    width: float
    height: float
    shares: bool

    @classmethod
    def parse(cls, text: str) -> Extent:
        """``20x8%`` of a picture, or ``120x40`` pixels.

        Raises:
            ValueError: it is neither.
        """
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)\s*[x×]\s*(\d+(?:\.\d+)?)(%?)", text.strip())
        if not found or (found[2] and not found[4]):
            raise ValueError(tr("a size is written as 20x8% of a picture, or as 120x40 pixels"))
        shares = bool(found[4])
        width, height = (float(part) / (100 if shares else 1) for part in (found[1], found[3]))
        if not 0 < min(width, height) or (shares and max(width, height) > 1):
            raise ValueError(tr("a size is above 0 and at most 100%"))
        return cls(width, height, shares)


@dataclass(frozen=True)
class Finish:
    """What is done to each mask that was made.

    Attributes:
        invert: learn what would not be learned, and the other way round.
        feather: how far edges are softened, as a share of the picture's shorter side.
        replace: put it in place of the mask that the picture has. Else only what both learn is learned.
    """

    invert: bool = False
    feather: float = 0.0
    replace: bool = False


def make(dataset: Dataset, source: Source, finish: Finish = Finish()) -> Iterator[tuple[str, bytes]]:
    """A new mask of each picture that gets one, as (the picture's name, PNG). Pictures that are left out get theirs
    too. Those whose mask would hide nothing, or stay as it is, get none.

    Raises:
        DatasetError: a picture or its mask can no longer be read.
    """
    for picture in sorted((*dataset.pictures, *dataset.left_out), key=lambda picture: picture.path):
        before = of(picture)
        after = finished(source(picture), before, finish)
        if after is not None and not _same(after, before):
            yield dataset.name(picture), png(after)


def of(picture: Picture) -> Image.Image | None:
    """The mask that a picture has, at the picture's size."""
    if picture.mask is None:
        return None
    found = pictures.open_picture(picture.mask.path, background=BLACK).convert("L")
    return found.resize((picture.width, picture.height)) if found.size != (picture.width, picture.height) else found


def opacity(picture: Picture) -> Image.Image | None:
    """A source: learn what is opaque. None for a picture without transparency."""
    return pictures.opacity(picture.path)


def without(box: Crop) -> Source:
    """A source: learn all but ``box``, the same part of every picture."""

    def mask(picture: Picture) -> Image.Image:
        return outside((picture.width, picture.height), box)

    return mask


def segmented(segmenter: Segmenter, keep: Literal["subject", "background"] = "subject") -> Source:
    """A source: learn the subject alone, or the background alone."""

    def mask(picture: Picture) -> Image.Image:
        found = segmenter.mask(pictures.open_picture(picture.path)).convert("L")
        return found if keep == "subject" else inverted(found)

    return mask


def without_corner(where: Corner, extent: Extent) -> Source:
    """A source: learn all but a corner."""

    def mask(picture: Picture) -> Image.Image:
        size = picture.width, picture.height
        return outside(size, corner(size, where, extent))

    return mask


def corner(size: tuple[int, int], where: Corner, extent: Extent) -> Crop:
    """The box in a corner of a picture of ``size`` in pixels."""
    wide, high = extent.width, extent.height
    if not extent.shares:
        wide, high = min(1.0, wide / size[0]), min(1.0, high / size[1])
    left, top = where.endswith("left"), where.startswith("top")
    return Crop(0.0 if left else 1 - wide, 0.0 if top else 1 - high, wide if left else 1.0, high if top else 1.0)


def outside(size: tuple[int, int], box: Crop) -> Image.Image:
    """White but for ``box``, which is rounded outwards to whole pixels."""
    width, height = size
    left, top = (math.floor(part + _ROUNDING) for part in (box.left * width, box.top * height))
    right, bottom = (math.ceil(part - _ROUNDING) for part in (box.right * width, box.bottom * height))
    mask = Image.new("L", size, WHITE)
    mask.paste(0, (left, top, right, bottom))
    return mask


def finished(made: Image.Image | None, before: Image.Image | None, finish: Finish) -> Image.Image | None:
    """``made``, or the mask ``before`` where a source gives none, inverted, feathered, and combined with ``before``."""
    if made is None:
        return None
    if finish.invert:
        made = inverted(made)
    if finish.feather:
        made = feathered(made, finish.feather)
    return made if before is None or finish.replace else combined(made, before)


def inverted(mask: Image.Image) -> Image.Image:
    """Black for white, and white for black."""
    return ImageOps.invert(mask)


def combined(mask: Image.Image, other: Image.Image) -> Image.Image:
    """What both learn: their product, where white is 1."""
    return ImageChops.multiply(mask, other)


def feathered(mask: Image.Image, share: float) -> Image.Image:
    """Soft edges, ``share`` of the shorter side wide. They lie within what is learned: black stays black."""
    blurred = mask.filter(ImageFilter.GaussianBlur(share * min(mask.size) / 2))
    own, soft = (np.asarray(one).astype(np.int16) for one in (mask, blurred))
    return Image.fromarray(np.clip(2 * soft - own, 0, own).astype(np.uint8))


def png(mask: Image.Image) -> bytes:
    """The file of a mask."""
    out = io.BytesIO()
    mask.convert("L").save(out, "PNG")
    return out.getvalue()


def learned(mask: Image.Image) -> float:
    """The share of a picture that its mask lets learn, 0 to 1."""
    return float(np.asarray(mask, np.float64).mean() / WHITE)


def _same(after: Image.Image, before: Image.Image | None) -> bool:
    """Whether a mask is as before; one of all white is none."""
    if before is None:
        return after.getextrema()[0] == WHITE
    return after.tobytes() == before.tobytes()
