"""The chart of the learning rates that a run tried before its first step: the loss at each, and the one it took."""

from __future__ import annotations

import math

from lora_studio.evaluation.value import number
from lora_studio.events import RateFound
from lora_studio.language import number as counting
from lora_studio.language import tr
from lora_studio.ui import words
from lora_studio.ui.plots import Frame, in_svg, ticks

_HEADROOM = 1.15
"""What is drawn above the first loss, as a multiple of it: where learning breaks down the loss may be any number."""


def chart(found: RateFound) -> str:
    """The chart as HTML, with a logarithmic axis; the sentence alone where too few rates were tried to draw a line."""
    sentence = f'<p class="hint">{words.text(found.sentence)}</p>'
    pairs = zip(found.rates, found.losses, strict=True)
    shown = [(rate, loss) for rate, loss in pairs if loss <= _HEADROOM * found.losses[0]]
    if len(shown) < 2:
        return sentence
    first, losses = shown[0][0], [loss for _, loss in shown]
    margin = (max(losses) - min(losses)) * 0.06 or 0.1
    frame = Frame(_decades(first, found.rates[-1]), min(losses) - margin, max(losses) + margin)
    svg = "".join(
        (
            *(f'<path class="grid" d="M0 {frame.y(y):g}H1000"/>' for y in ticks(frame.low, frame.high)),
            f'<path class="trend" d="{frame.line([(_decades(first, rate), loss) for rate, loss in shown])}"/>',
        )
    )
    legend, label = (
        words.text(one)
        for one in (tr("loss at each learning rate"), tr("Loss over the learning rates that were tried"))
    )
    return (
        f'<figure class="chart rates"><figcaption><span class="key trend">{legend}</span></figcaption>'
        f'<div class="plot still" role="img" aria-label="{label}">'
        f"{in_svg(svg)}{_labels(frame, first)}{_taken(frame, first, found)}</div></figure>{sentence}"
    )


def _decades(first: float, rate: float) -> float:
    return math.log10(rate / first)


def _labels(frame: Frame, first: float) -> str:
    """The powers of ten below the drawing, and the losses beside it."""
    powers = range(math.ceil(math.log10(first)), math.floor(math.log10(first) + frame.last) + 1)
    across = [
        f'<span class="tick across" style="{frame.left(power - math.log10(first))}">{counting(10.0**power, "g")}</span>'
        for power in powers
    ]
    up = [
        f'<span class="tick up" style="top:{frame.y(value) / 10:g}%">{number(value, "g")}</span>'
        for value in ticks(frame.low, frame.high)
    ]
    return "".join(across + up)


def _taken(frame: Frame, first: float, found: RateFound) -> str:
    """The rate that was found, as a dashed line; nothing where there was none."""
    place = _decades(first, found.rate)
    if not found.found or not 0 <= place <= frame.last:
        return ""
    name = f'<span class="flag" style="--at:{frame.x(place) / 10:g}%">{words.value(found.rate)}</span>'
    return f'<i class="proposed" style="{frame.left(place)}"></i>{name}'
