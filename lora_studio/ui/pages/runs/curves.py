"""Curves of two runs over each other, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lora_studio.jobs.view import SMOOTHING, smoothed
from lora_studio.language import tr
from lora_studio.ui import plots, words
from lora_studio.ui.plots import Frame, Point

SIDES = ("one", "other")
"""The classes of the two runs, which have a colour each."""
_OUTLIERS = 50
"""One of so many values at either end does not widen the chart."""


def chart(title: str, lines: Sequence[Sequence[Point]], dots: bool = False, unit: str = "") -> str:
    """The lines of both runs in one frame, as HTML; empty where neither has a finite value.

    Args:
        title: what is drawn.
        lines: a line of (step, value) of each run.
        dots: a dot at each value, where they are few.
        unit: behind the values at the side.
    """
    finite = [[point for point in line if math.isfinite(point[1])] for line in lines]
    if not any(finite):
        return ""
    frame = Frame(max(line[-1][0] for line in finite if line), *_bounds(finite))
    svg = "".join(f'<path class="grid" d="M0 {frame.y(y):g}H1000"/>' for y in plots.ticks(frame.low, frame.high))
    for side, line in zip(SIDES, finite, strict=True):
        svg += f'<path class="{side}" d="{frame.line(plots.thinned(line))}"/>'
        svg += f'<path class="{side} dots" d="{frame.dots(plots.thinned(line, 120))}"/>' * dots
    spoken = words.text(tr("{title} of both runs over the steps", title=title))
    return (
        f'<figure class="chart"><figcaption><b>{words.text(title)}</b></figcaption>'
        f'<div class="plot still" role="img" aria-label="{spoken}">'
        f"{plots.in_svg(svg)}{plots.labels(frame, unit)}</div></figure>"
    )


def trend(points: Sequence[Point]) -> list[Point]:
    """The smoothed curve."""
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    return list(zip((step for step, _ in finite), smoothed([value for _, value in finite], SMOOTHING), strict=True))


def _bounds(lines: Sequence[Sequence[Point]]) -> tuple[float, float]:
    """The lowest and highest value shown, with a margin."""
    inner = []
    for line in lines:
        values = sorted(value for _, value in line)
        edge = len(values) // _OUTLIERS
        inner += values[edge : len(values) - edge]
    low, high = min(inner), max(inner)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin
