"""Charts over the steps of a run: the loss, and what was measured of saved states. They are SVG, so they are sharp,
small and themed.

A drawing stretches to the width of the page, while its lines and labels keep their size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from lora_studio.evaluation.value import number
from lora_studio.events import Measured
from lora_studio.jobs.view import smoothed
from lora_studio.language import declared, tr
from lora_studio.language import number as counting
from lora_studio.ui import words

MOST_POINTS = 400
"""Points drawn per line. Beyond that, only the lowest and the highest of each stretch of steps are drawn."""
STRETCHES = 150
"""Stretches in which the steps of a longer run are drawn together: a line through all of them would be a block."""

Point = tuple[float, float]


class Stretch(NamedTuple):
    """Some steps that follow one another: the last one, and of their losses the lowest, the limits within which eight
    of ten lie, the mean, and the highest.
    """

    step: float
    lowest: float
    low: float
    mean: float
    high: float
    highest: float


def stretches(points: Sequence[Point], count: int = STRETCHES) -> list[Stretch]:
    """The points in at most ``count`` stretches of equally many steps; the latest steps may be known more densely."""
    first, width = points[0][0], (points[-1][0] - points[0][0]) / count or 1.0
    found = []
    for _, group in groupby(points, key=lambda point: min(count - 1, int((point[0] - first) / width))):
        part = list(group)
        values = sorted(value for _, value in part)
        edge, mean = len(values) // 10, sum(values) / len(values)
        found.append(Stretch(part[-1][0], values[0], values[edge], mean, values[-1 - edge], values[-1]))
    return found


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most ``most`` of the points: the lowest and the highest of each of ``most / 2`` equal stretches, so that no
    spike is lost.
    """
    if len(points) <= most:
        return list(points)
    parts, kept = most // 2, []
    for i in range(parts):
        part = points[len(points) * i // parts : len(points) * (i + 1) // parts]
        kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    return kept


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between ``low`` and ``high``: 1, 2 or 5 times a power of ten apart.

    >>> ticks(0, 1000), ticks(0.08, 0.21)
    ([0.0, 200.0, 400.0, 600.0, 800.0, 1000.0], [0.1, 0.15, 0.2])
    """
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(float(i * step), 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _span(raw: list[Point], trend: list[Point], validation: list[Point]) -> tuple[float, float]:
    """Lowest and highest loss shown: all of the validation's, and the steps' and the trend's without their lowest and
    highest 2 %.
    """
    shown = [value for line in (raw, trend) for value in _inner(line)] + [value for _, value in validation]
    low, high = min(shown), max(shown)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return max(0.0, low - margin) if low >= 0 else low - margin, high + margin


def _inner(line: list[Point]) -> list[float]:
    losses = sorted(value for _, value in line)
    edge = len(losses) // 50
    return losses[edge : len(losses) - edge]


class Frame:
    """Maps steps, from 0 to ``last``, and values, from ``low`` to ``high``, to the coordinates of a drawing."""

    def __init__(self, last: float, low: float, high: float):
        self.last, self.low, self.high = max(last, 1.0), low, high

    def x(self, step: float) -> float:
        return round(1000 * step / self.last, 1)

    def y(self, loss: float) -> float:
        return round(1000 * (self.high - loss) / (self.high - self.low), 1)

    def line(self, points: Sequence[Point]) -> str:
        return "M" + "L".join(f"{self.x(step):g} {self.y(loss):g}" for step, loss in points) if points else ""

    def dots(self, points: Sequence[Point]) -> str:
        """Strokes of length zero: round caps make them dots, which stay round when the drawing is stretched."""
        return "".join(f"M{self.x(step):g} {self.y(loss):g}h0" for step, loss in points)

    def left(self, step: float) -> str:
        """Where an element over the drawing stands, as CSS."""
        return f"left:{self.x(step) / 10:g}%"

    def at(self, step: float, value: float) -> str:
        """Where an element over the drawing stands, as CSS."""
        return f"{self.left(step)};top:{self.y(value) / 10:g}%"


_VALIDATION = tr(
    "Validation is the loss on held-out pictures. It falls while the adapter learns what your pictures have in common. "
    "Its lowest point need not be the best state, and a rise alone is no sign of copying: judge by the pictures."
)


def loss(
    steps: Sequence[Point],
    validations: Sequence[Point],
    total: int,
    smoothing: float = 0.9,
    proposed: int | None = None,
) -> str:
    """The chart as HTML.

    Args:
        steps: (step, loss) of every step so far.
        validations: (step, loss) of every validation.
        total: last step of the run, the right edge.
        smoothing: weight on the past; 0 shows the steps themselves, near 1 only the trend. Of a long run it weighs
            stretches of steps, so that its curve is as smooth as a short one's.
        proposed: the step that is proposed to be kept.
    """
    raw = [(step, value) for step, value in steps if math.isfinite(value)]
    validation = [(step, value) for step, value in validations if math.isfinite(value)]
    if not raw:
        return f'<div class="chart empty"><p>{words.text(tr("The loss appears here after the first step."))}</p></div>'
    long = stretches(raw) if len(raw) > MOST_POINTS else []
    seen = [(one.step, one.mean) for one in long] or raw
    trend = list(zip((step for step, _ in seen), smoothed([value for _, value in seen], smoothing), strict=True))
    middle = [(one.step, value) for one in long for value in (one.low, one.high)]
    frame = Frame(max(total, raw[-1][0]), *_span(middle or raw, trend if not long else [], validation))
    svg = "".join(
        (
            *(f'<path class="grid" d="M0 {frame.y(y):g}H1000"/>' for y in ticks(frame.low, frame.high)),
            _bands(frame, long) or f'<path class="raw" d="{frame.line(raw)}"/>',
            f'<path class="trend" d="{frame.line(trend)}"/>',
            f'<path class="validation" d="{frame.line(thinned(validation, 200))}"/>',
            f'<path class="validation dots" d="{frame.dots(thinned(validation, 60))}"/>',
        )
    )
    drawing = f"{in_svg(svg)}{labels(frame)}{flag(frame, proposed)}{_lowest(frame, validation)}"
    data = (
        f'data-frame="{frame.last:g} {frame.low:g} {frame.high:g}" '
        f'data-trend="{_readable(trend)}" data-validation="{_readable(validation)}"'
    )
    note = f'<p class="hint">{words.text(_VALIDATION)}</p>' if validation else ""
    return (
        f'<figure class="chart">{_legend(trend, validation, bool(long))}'
        f'<div class="plot" role="img" aria-label="{words.text(tr("Loss over the steps"))}" {data}>'
        f'{drawing}<i class="cursor"></i><output class="tip"></output></div></figure>{note}'
    )


def measure(values: Sequence[Measured], total: int) -> str:
    """The chart of one measure as HTML: its values as a line with dots, their intervals as a band. Nothing where none
    is finite.

    Args:
        values: in the order of the steps.
        total: last step of the run, the right edge.
    """
    finite = [one for one in values if math.isfinite(one.value)]
    if not finite:
        return ""
    line: list[Point] = [(one.step, one.value) for one in finite]
    low = [(one.step, one.value if one.low is None else one.low) for one in finite]
    high = [(one.step, one.value if one.high is None else one.high) for one in finite]
    frame = Frame(max(total, line[-1][0]), *_span([], [], [*line, *low, *high]))
    svg = "".join(
        (
            *(f'<path class="grid" d="M0 {frame.y(y):g}H1000"/>' for y in ticks(frame.low, frame.high)),
            f'<path class="band" d="{frame.line([*high, *reversed(low)])}Z"/>',
            f'<path class="validation" d="{frame.line(line)}"/>',
            f'<path class="validation dots" d="{frame.dots(line)}"/>',
        )
    )
    title = declared(finite[-1].title)
    legend = f'<span class="key validation">{words.text(title)} <b>{words.figure(finite[-1].value)}</b></span>'
    label = words.text(tr("{measure} over the steps", measure=title))
    return (
        f'<figure class="chart"><figcaption>{legend}</figcaption>'
        f'<div class="plot still" role="img" aria-label="{label}">'
        f"{in_svg(svg)}{labels(frame)}</div></figure>"
    )


def in_svg(svg: str) -> str:
    """The drawing of these paths."""
    return f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" aria-hidden="true">{svg}</svg>'


def flag(frame: Frame, proposed: int | None) -> str:
    """The step that is proposed to be kept, as a dashed line; nothing outside of the chart."""
    if proposed is None or proposed > frame.last:
        return ""
    name = f'<span class="flag" style="--at:{frame.x(proposed) / 10:g}%">★ {counting(proposed)}</span>'
    return f'<i class="proposed" style="{frame.left(proposed)}"></i>{name}'


def _lowest(frame: Frame, validation: Sequence[Point]) -> str:
    """A ring around the lowest validation."""
    if not validation:
        return ""
    step, value = min(validation, key=lambda point: point[1])
    return f'<i class="lowest" style="{frame.at(step, value)}"></i>'


def _readable(points: list[Point]) -> str:
    """The points whose values the pointer shows, 200 at most, as JSON."""
    stride = math.ceil(len(points) / 199) or 1
    return json.dumps([(step, float(f"{value:.5g}")) for step, value in [*points[::stride], *points[-1:]]])


def _bands(frame: Frame, long: Sequence[Stretch]) -> str:
    """Where the steps of a long run lie: all of them, and eight of ten."""
    if not long:
        return ""
    ends = [
        ([(one.step, one.highest) for one in long], [(one.step, one.lowest) for one in reversed(long)]),
        ([(one.step, one.high) for one in long], [(one.step, one.low) for one in reversed(long)]),
    ]
    return "".join(f'<path class="spread" d="{frame.line([*above, *below])}Z"/>' for above, below in ends)


def _legend(trend: list[Point], validation: list[Point], long: bool) -> str:
    kind, steps = ("spread", tr("8 of 10 steps; paler, all")) if long else ("raw", tr("each step"))
    smooth = tr("smoothed {loss}", loss=_bold(trend[-1][1]))  # HTML, as is the entry below
    entries = [f'<span class="key {kind}">{words.text(steps)}</span>', f'<span class="key trend">{smooth}</span>']
    if validation:
        lowest = min(validation, key=lambda point: point[1])[0]
        told = tr("validation {loss}, lowest at step {step:,.0f}", loss=_bold(validation[-1][1]), step=lowest)
        entries.append(f'<span class="key validation">{told}</span>')
    return f"<figcaption>{''.join(entries)}</figcaption>"


def _bold(value: float) -> str:
    return f"<b>{words.figure(value)}</b>"


def labels(frame: Frame, unit: str = "", about: int = 5) -> str:
    """The values beside the drawing, about ``about`` of them, with their ``unit``, and the steps below it, as HTML."""
    across = [
        f'<span class="tick across" style="{frame.left(step)}">{counting(step, ",.0f")}</span>'
        for step in ticks(0, frame.last)
        if step % 1 == 0
    ]
    up = [
        f'<span class="tick up" style="top:{frame.y(value) / 10:g}%">{number(value, "g")}{unit}</span>'
        for value in ticks(frame.low, frame.high, about)
    ]
    return "".join(across + up)


_POINTER = """
const words = %(words)s;
const say = (template, loss, step) => template
  .replace('{loss}', loss.toLocaleString(document.documentElement.lang, {maximumSignificantDigits: 5}))
  .replace('{step}', step.toLocaleString(document.documentElement.lang));
element.addEventListener('pointermove', event => {
  const plot = event.target.closest('.plot:not(.still)');
  if (!plot) return;
  const [last, low, high] = plot.dataset.frame.split(' ').map(Number);
  const box = plot.getBoundingClientRect();
  const step = (event.clientX - box.left) / box.width * last;
  const nearer = (best, p) => Math.abs(p[0] - step) < Math.abs(best[0] - step) ? p : best;
  const nearest = points => points.reduce(nearer, points[0]);
  const trend = nearest(JSON.parse(plot.dataset.trend)), validations = JSON.parse(plot.dataset.validation);
  const x = trend[0] / last * 100;
  plot.querySelector('.cursor').style.cssText = `display:block;left:${x}%%`;
  const tip = plot.querySelector('.tip');
  const rows = [say(words.step, 0, trend[0]), say(words.smoothed, trend[1], 0)];
  if (validations.length) {
    const v = nearest(validations);
    rows.push(say(words.validation, v[1], v[0]));
  }
  tip.textContent = rows.join(' · ');
  tip.style.cssText = x > 50 ? `display:block;right:${100 - x}%%` : `display:block;left:${x}%%`;
});
element.addEventListener('pointerleave', () => {
  for (const part of element.querySelectorAll('.cursor, .tip')) part.style.cssText = '';
});
"""


def pointer() -> str:
    """Shows the values under the pointer; for ``gr.HTML(js_on_load=...)``."""
    told = {
        "step": tr("step {step}"),
        "smoothed": tr("smoothed {loss}"),
        "validation": tr("validation {loss} at {step}"),
    }
    return _POINTER % {"words": words.script(told)}
