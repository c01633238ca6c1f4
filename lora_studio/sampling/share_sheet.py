"""The sheet to show others: each prompt without the style and with it, and how to use the adapter. Pillow only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from lora_studio.sampling import fonts
from lora_studio.sampling.sheet import FAINT, INK, PAPER

MOST = 6
"""Prompts on a sheet."""
_TILE, _GAP, _EDGE, _ROUND = 320, 16, 56, 14
_TITLE, _TEXT = 60, 24


class SheetPair(NamedTuple):
    """One prompt, drawn without the style, if that is known, and with it."""

    prompt: str
    base: Image.Image | None
    style: Image.Image


def draw(pairs: Sequence[SheetPair], name: str, facts: Sequence[str]) -> Image.Image:
    """The sheet of the first ``MOST`` pairs, at least one.

    Args:
        name: of the adapter, large at the top.
        facts: short ones, side by side below it: trigger word, strength, base model.
    """
    pairs = pairs[:MOST]
    both = any(pair.base for pair in pairs)
    columns = min(len(pairs), 3 if len(pairs) in (3, 5, 6) else 4)
    lines = -(-len(pairs) // columns)
    label = round(1.9 * _TEXT)
    block = (2 if both else 1) * (_TILE + _GAP) + label
    head = _EDGE + round(1.35 * _TITLE) + round(1.9 * _TEXT) + _GAP
    width = max(2 * _EDGE + columns * (_TILE + _GAP) - _GAP, 2 * _EDGE + 2 * _TILE + _GAP)
    page = Image.new("RGB", (width, head + lines * block + _EDGE - _GAP), PAPER)
    pen = ImageDraw.Draw(page)
    room = width - 2 * _EDGE
    pen.text((_EDGE, _EDGE - 12), fonts.cut(name, _TITLE, room), INK, fonts.font(_TITLE, name))
    told = "   ·   ".join(facts)
    pen.text((_EDGE, _EDGE + round(1.25 * _TITLE)), fonts.cut(told, _TEXT, room), FAINT, fonts.font(_TEXT, told))
    for place, pair in enumerate(pairs):
        x = _EDGE + place % columns * (_TILE + _GAP)
        y = head + place // columns * block
        for image in (pair.base, pair.style) if both else (pair.style,):
            if image:
                _put(page, image, (x, y))
            y += _TILE + _GAP
        text = fonts.cut(pair.prompt, _TEXT, _TILE)
        pen.text((x, y - _GAP + 6), text, INK, fonts.font(_TEXT, pair.prompt))
    if both:
        _mark(page, pen, (_EDGE, head), "without")
        _mark(page, pen, (_EDGE, head + _TILE + _GAP), f"with {name}")
    return page


def _put(page: Image.Image, image: Image.Image, place: tuple[int, int]) -> None:
    """The middle of the picture as a square with round corners."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.convert("RGB").resize((_TILE, _TILE), Image.Resampling.LANCZOS, (left, top, left + side, top + side))
    page.paste(square, place, _rounded(square.size, _ROUND))


def _rounded(size: tuple[int, int], radius: int) -> Image.Image:
    """A mask of that size with smooth round corners."""
    mask = Image.new("L", (4 * size[0], 4 * size[1]))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), 4 * radius, 255)
    return mask.resize(size, Image.Resampling.LANCZOS)


def _mark(page: Image.Image, pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str) -> None:
    """A small label on the corner of a picture."""
    size = 19
    text = fonts.cut(text, size, _TILE - 44)
    box = round(fonts.width(text, size)) + 20, 32
    x, y = place[0] + 10, place[1] + 10
    page.paste(INK, (x, y, x + box[0], y + box[1]), _rounded(box, 16))
    pen.text((x + 10, y + 4), text, "white", fonts.font(size, text))
