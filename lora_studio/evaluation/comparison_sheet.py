"""The sheet of a comparison: training pictures, the base model and the states in rows, prompts in columns."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from lora_studio.dataset.items import Dataset
from lora_studio.dataset.pictures import open_picture
from lora_studio.evaluation.columns import picture
from lora_studio.evaluation.side_by_side import SideBySide
from lora_studio.sampling.sheet import sheet

KEY = "lora_studio.comparison"
"""Of the result in a PNG's header. A WebP has it in its EXIF description."""
_SIDE = 256
"""Of a picture, at most."""
_DESCRIPTION = 0x010E


def drawn(found: SideBySide, names: Sequence[str]) -> Image.Image:
    """The sheet; of each prompt the picture of the first seed.

    Args:
        names: of the groups, of which the first state is shown.
    """
    count = len(found.plan.prompts)
    places = [found.base, *(group[0].pictures for group in found.groups)]
    rows = [[_small(picture(place, prompt, 0)) for prompt in range(count)] for place in places]
    return sheet(
        [_training(found.dataset, count, rows[0][0].size), *rows],
        columns=found.plan.prompts,
        names=["training pictures", "base model", *names],
    )


def data(image: Image.Image, kind: str, result: str) -> bytes:
    """The sheet as a file of ``kind``, ``.png`` or ``.webp``, with ``result``, JSON in ASCII, in its header."""
    file = io.BytesIO()
    if kind == ".png":
        note = PngInfo()
        note.add_text(KEY, result)
        image.save(file, "PNG", pnginfo=note)
    else:
        exif = Image.Exif()
        exif[_DESCRIPTION] = result
        image.save(file, "WEBP", quality=90, method=6, exif=exif)
    return file.getvalue()


def _training(dataset: Dataset, count: int, size: tuple[int, int]) -> list[Image.Image]:
    shown = [one for one in dataset.pictures if not one.regularisation]
    places = np.linspace(0, len(shown) - 1, min(count, len(shown))).round().astype(int)
    return [ImageOps.contain(open_picture(shown[place].path), size) for place in places]


def _small(image: Image.Image) -> Image.Image:
    return ImageOps.contain(image, (_SIDE, _SIDE)) if max(image.size) > _SIDE else image
