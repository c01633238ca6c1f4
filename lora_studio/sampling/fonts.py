"""The fonts that sheets are drawn with: Pillow's own, or one of the system's for letters that it lacks."""

from __future__ import annotations

from bisect import bisect_right
from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_WIDER = (
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "wqy-zenhei.ttc", "YuGothM.ttc", "msyh.ttc", "msgothic.ttc",
    "Hiragino Sans GB.ttc", "PingFang.ttc", "Arial Unicode.ttf", "DejaVuSans.ttf",
)  # fmt: skip
"""Fonts with more letters, by the names that Linux, Windows and macOS have them under."""


@cache
def _own(size: int) -> Font:
    return ImageFont.load_default(size)


@cache
def _wider(size: int) -> Font:
    """The first of ``_WIDER`` that the system has, else Pillow's."""
    for name in _WIDER:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return _own(size)


def font(size: int, text: str) -> Font:
    """The font of ``size`` pixels to draw ``text`` with."""
    return _own(size) if all(ord(one) < 0x250 or one in "–—‘’“”…•·" for one in text) else _wider(size)


def width(text: str, size: int) -> float:
    """Pixels that ``text`` takes in one line."""
    return font(size, text).getlength(text)


def cut(text: str, size: int, room: int) -> str:
    """``text`` in one line of ``room`` pixels, with an ellipsis where it is longer."""
    text = " ".join(text.split())
    if width(text, size) <= room:
        return text
    fitting = bisect_right(range(len(text)), room, key=lambda count: width(text[:count] + "…", size)) - 1
    return text[: max(0, fitting)].rstrip() + "…"
