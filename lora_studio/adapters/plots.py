"""The analysis as images: heatmap, spectrum and histogram, drawn with Pillow and returned as PNG bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from lora_studio.adapters.analysis import Analysis, Heatmap, Histogram

_INK, _GRID, _PAPER, _NONE = (40, 40, 48), (214, 214, 220), (255, 255, 255), (240, 240, 243)
_COLD, _WARM = (245, 243, 238), (178, 58, 36)
_BAR = (58, 105, 166)
_CELL, _MARGIN = 34, 12
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def heatmap(heat: Heatmap) -> bytes:
    """Blocks down, kinds of layer across; larger values are darker, and each cell shows its value."""
    font = ImageFont.load_default(12)
    left = max(_width(font, row) for row in heat.rows) + 2 * _MARGIN
    top = max(_width(font, column) for column in heat.columns) + 2 * _MARGIN
    image = Image.new(
        "RGB", (left + len(heat.columns) * _CELL + _MARGIN, top + len(heat.rows) * _CELL + _MARGIN), _PAPER
    )
    draw = ImageDraw.Draw(image)
    largest = max((value for row in heat.values for value in row if value is not None), default=0.0) or 1.0
    for index, column in enumerate(heat.columns):
        _upright(image, font, column, left + index * _CELL + _CELL // 2, top - _MARGIN // 2)
    for y, (row, values) in enumerate(zip(heat.rows, heat.values, strict=True)):
        middle = top + y * _CELL + _CELL // 2
        draw.text((left - _MARGIN // 2, middle), row, _INK, font, anchor="rm")
        for x, value in enumerate(values):
            _cell(draw, left + x * _CELL, middle, value, largest, heat.relative)
    return _png(image)


def _cell(draw: ImageDraw.ImageDraw, x: int, middle: int, value: float | None, largest: float, relative: bool) -> None:
    share = 0.0 if value is None else value / largest
    fill = (
        _NONE
        if value is None
        else tuple(round(cold + (warm - cold) * share) for cold, warm in zip(_COLD, _WARM, strict=True))
    )
    draw.rectangle((x, middle - _CELL // 2, x + _CELL - 2, middle + _CELL // 2 - 2), fill)
    if value is not None:
        text = f"{value * 100:.1f}" if relative else f"{value:.2g}"
        draw.text(
            (x + _CELL // 2 - 1, middle - 1),
            text,
            _PAPER if share > 0.55 else _INK,
            ImageFont.load_default(10),
            anchor="mm",
        )


def spectrum(analysis: Analysis) -> bytes:
    """The share of the change that each rank adds; a line marks the rank that reaches 99 %."""
    ticks = [(index, str(index + 1)) for index in range(0, len(analysis.spectrum), max(1, len(analysis.spectrum) // 8))]
    return _bars(
        analysis.spectrum,
        ticks,
        f"share of the change by rank; 99 % at rank {analysis.rank_99} of {analysis.rank}",
        mark=analysis.rank_99,
    )


def histogram(histogram: Histogram) -> bytes:
    """Magnitudes of the change's entries, by powers of ten."""
    ticks = [
        (index, f"1e{edge:.0f}")
        for index, edge in enumerate(histogram.edges[:-1])
        if abs(edge - round(edge)) < 1e-6 and round(edge) % 2 == 0
    ]
    return _bars(histogram.counts, ticks, "magnitudes of the change's entries")


def _bars(values: Sequence[float], ticks: Sequence[tuple[int, str]], title: str, mark: int = 0) -> bytes:
    """A bar chart of 560 × 260 px; ``mark`` draws a line after that many bars."""
    wide, high, left, bottom, top = 560, 260, 16, 232, 34
    image = Image.new("RGB", (wide, high), _PAPER)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(12)
    draw.text((left, 10), title, _INK, font)
    step = (wide - 2 * left) / max(len(values), 1)
    largest = max(values, default=0) or 1
    for index, value in enumerate(values):
        x = left + index * step
        draw.rectangle((x, bottom - (bottom - top) * value / largest, x + max(step - 2, 1), bottom), _BAR)
    draw.line((left, bottom, wide - left, bottom), _GRID)
    if mark:
        x = left + mark * step - 1
        draw.line((x, top, x, bottom), _WARM, 2)
    for index, text in ticks:
        draw.text((left + (index + 0.5) * step, bottom + 4), text, _INK, font, anchor="ma")
    return _png(image)


def _width(font: _Font, text: str) -> int:
    return math.ceil(font.getlength(text))


def _upright(image: Image.Image, font: _Font, text: str, x: int, bottom: int) -> None:
    """Writes ``text`` rotated by 90° to the left, ending at ``bottom``."""
    strip = Image.new("L", (_width(font, text) + 2, 18), 0)
    ImageDraw.Draw(strip).text((1, 9), text, 255, font, anchor="lm")
    turned = strip.rotate(90, expand=True)
    image.paste(Image.new("RGB", turned.size, _INK), (x - 9, bottom - turned.height), turned)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
