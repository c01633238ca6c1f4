"""What a study found, drawn: every trial across all axes, and the style along one of them. SVG, as in ``ui.plots``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lora_studio.config.specs import SPECS
from lora_studio.evaluation.value import STYLE_SCALE, TOO_FEW, number
from lora_studio.language import tr
from lora_studio.sweeps import results
from lora_studio.sweeps.outcome import Trial, TrialOutcome
from lora_studio.sweeps.space import Sweep, ValueRange
from lora_studio.ui import words
from lora_studio.ui.plots import ticks

_STYLE = "style"
_WIDE = 4.0
"""From this ratio of its largest to its smallest value on, a listed axis is drawn by factors."""
_INSET = 40.0
"""Of 1000, between the ends of an axis and the edges."""
_APART = 12.0
"""Of 1000, between trials with the same value; fewer where there are many of them."""
_SIDE = 60.0
"""Of 1000, the most that trials with the same value take."""


class AxisScale:
    """Where the values of one axis lie, from 0 to 1: numbers by size or by factors, others one beside the other."""

    def __init__(self, sweep: Sweep, key: str):
        axis = sweep.axes[key]
        self.key = key
        drawn = isinstance(axis, ValueRange) and sweep.sampler != "grid"
        self.values: list[Any] = [axis.low, axis.high] if isinstance(axis, ValueRange) and drawn else sweep.values(key)
        self.numbers = SPECS[key].kind in ("integer", "number")
        self.listed, self.log = not drawn, False
        if self.numbers:
            self.values = sorted(self.values)
            low, high = self.values[0], self.values[-1]
            self.log = axis.log if isinstance(axis, ValueRange) else low > 0 and high / low >= _WIDE

    def place(self, value: Any) -> float:
        """From 0 to 1."""
        if not self.numbers:
            return self._spread(self.values.index(value) if value in self.values else 0)
        low, high, here = (math.log(x) if self.log else float(x) for x in (self.values[0], self.values[-1], value))
        return (here - low) / (high - low) if high > low else 0.5

    def marks(self) -> list[tuple[float, str]]:
        """Places with their labels; of many values, some."""
        shown = self.values
        if self.numbers and not self.listed:
            low, high = shown
            shown = [low, math.sqrt(low * high), high] if self.log else [low, *ticks(low, high, 3)[1:-1], high]
            if SPECS[self.key].kind == "integer":
                shown = list(dict.fromkeys(map(round, shown)))
        stride = math.ceil(len(shown) / 8)
        return [(self.place(value), results.shown(self.key, value)) for value in shown[::stride]]

    def _spread(self, index: int) -> float:
        return index / (len(self.values) - 1) if len(self.values) > 1 else 0.5


def _finished(trials: Sequence[Trial]) -> list[tuple[Trial, TrialOutcome]]:
    return [(trial, trial.outcome) for trial in trials if trial.outcome and math.isfinite(trial.outcome.style.value)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest value shown, with a margin."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or 1.0
    return low - margin, high + margin


def _kind(trial: Trial, outcome: TrialOutcome, chosen: int | None) -> str:
    """The class of a trial's marks."""
    kinds = ["trial"] + ["faded"] * (not outcome.sound) + ["best"] * (trial.number == chosen)
    return " ".join(kinds)


def parallel(sweep: Sweep, trials: Sequence[Trial], chosen: int | None = None) -> str:
    """Every trial as a line across all axes, to its style at the right. ``chosen`` stands out."""
    found = _finished(trials)
    if not found:
        return ""
    scales = [AxisScale(sweep, key) for key in sweep.axes]
    styles = [outcome.style.value for _, outcome in found]
    low, high = (min(styles), max(styles)) if len(set(styles)) > 1 else _span(styles)
    columns = [1000 * i / len(scales) for i in range(len(scales) + 1)]

    def line(trial: Trial, outcome: TrialOutcome) -> str:
        heights = [_up(scale.place(trial.params[scale.key])) for scale in scales]
        heights.append(_up((outcome.style.value - low) / (high - low)))
        points = "L".join(f"{x:.4g} {y:.4g}" for x, y in zip(columns, heights, strict=True))
        return f'<path class="{_kind(trial, outcome, chosen)}" d="M{points}"/>'

    ordered = sorted(found, key=lambda one: (one[0].number == chosen, one[1].style.value))
    svg = "".join(f'<path class="grid" d="M{x:.4g} 0V1000"/>' for x in columns)
    svg += "".join(line(*one) for one in ordered)
    labels = ""
    for x, scale in zip(columns, scales, strict=False):
        labels += _head(x, SPECS[scale.key].label)
        labels += "".join(_beside(x, _up(place), label) for place, label in scale.marks())
    labels += _head(1000, tr("Style, %"), last=True)
    labels += "".join(
        _beside(1000, _up((value - low) / (high - low)), number(value, "g")) for value in ticks(low, high, 5)
    )
    return _figure("parallel", svg, labels, tr("Every trial across all axes, to its style"))


def response(sweep: Sweep, trials: Sequence[Trial], key: str, chosen: int | None = None) -> str:
    """The style of every trial, with its interval, along the axis ``key``; the line is the mean at each value."""
    found = _finished(trials)
    if not found or key not in sweep.axes:
        return ""
    scale = AxisScale(sweep, key)
    low, high = _span([end for _, outcome in found for end in _drawn(outcome)])

    def x(value: Any) -> float:
        return _INSET + (1000 - 2 * _INSET) * scale.place(value)

    def y(style: float) -> float:
        return 1000 * (high - style) / (high - low)

    svg = "".join(f'<path class="grid" d="M0 {y(value):.4g}H1000"/>' for value in ticks(low, high))
    if scale.listed:
        svg += f'<path class="mean" d="{_means(found, key, x, y)}"/>'
    for (trial, outcome), aside in zip(found, _asides([trial.params[key] for trial, _ in found]), strict=True):
        kind, here, (style, *ends) = _kind(trial, outcome, chosen), x(trial.params[key]) + aside, _drawn(outcome)
        if ends:
            svg += f'<path class="whisker {kind}" d="M{here:.4g} {y(ends[0]):.4g}V{y(ends[1]):.4g}"/>'
        svg += f'<path class="dots {kind}" d="M{here:.4g} {y(style):.4g}h0"/>'
    labels = "".join(
        f'<span class="tick across" style="left:{(_INSET + (1000 - 2 * _INSET) * place) / 10:.4g}%">'
        f"{words.text(label)}</span>"
        for place, label in scale.marks()
    )
    labels += "".join(
        f'<span class="tick up" style="top:{y(value) / 10:.4g}%">{number(value, "g")}</span>'
        for value in ticks(low, high)
    )
    more = [tr("dashed: the mean at each value")] if scale.listed else []
    if any(outcome.style.vague(STYLE_SCALE) for _, outcome in found):
        more.append(tr("no bar: {reason}", reason=TOO_FEW))
    return _figure("response", svg, labels, tr("Style along {label}", label=SPECS[key].label), more)


def _drawn(outcome: TrialOutcome) -> list[float]:
    """The style, and the ends of its interval, where that tells something."""
    style, low, high = outcome.style
    known = low is not None and high is not None and not outcome.style.vague(STYLE_SCALE)
    return [style, low, high] if known else [style]


def _means(found: Sequence[tuple[Trial, TrialOutcome]], key: str, x: Any, y: Any) -> str:
    by_value: dict[Any, list[float]] = {}
    for trial, outcome in found:
        by_value.setdefault(trial.params[key], []).append(outcome.style.value)
    points = sorted((x(value), y(sum(styles) / len(styles))) for value, styles in by_value.items())
    return "M" + "L".join(f"{across:.4g} {up:.4g}" for across, up in points)


def _asides(values: Sequence[Any]) -> list[float]:
    """How far each mark is moved aside, so that marks at the same value lie beside each other."""
    counts, seen, moved = {value: values.count(value) for value in values}, dict.fromkeys(values, 0), []
    for value in values:
        apart = min(_APART, _SIDE / counts[value])
        moved.append(apart * (seen[value] - (counts[value] - 1) / 2))
        seen[value] += 1
    return moved


def _up(place: float) -> float:
    """From 0 … 1 to the drawing's 1000 … 0, within its insets."""
    return 1000 - _INSET - (1000 - 2 * _INSET) * place


def _head(x: float, label: str, last: bool = False) -> str:
    side = "last" if last else "first" if x == 0 else ""
    return f'<b class="head {side}" style="left:{x / 10:.4g}%">{words.text(label)}</b>'


def _beside(x: float, y: float, label: str) -> str:
    side = "last" if x == 1000 else ""
    return f'<span class="tick beside {side}" style="left:{x / 10:.4g}%;top:{y / 10:.4g}%">{words.text(label)}</span>'


def _legend(more: Sequence[str]) -> str:
    sound, faded = words.text(tr("subjects hold, no copies")), words.text(tr("subjects fade, or copies"))
    keys = f'<span class="key trend">{sound}</span><span class="key validation">{faded}</span>'
    return f"<figcaption>{keys}{''.join(f'<span>{words.text(one)}</span>' for one in more)}</figcaption>"


def _figure(kind: str, svg: str, labels: str, told: str, more: Sequence[str] = ()) -> str:
    """A chart; its legend explains the colours, and ``more``."""
    drawing = f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none">{svg}</svg>{labels}'
    plot = f'<div class="plot still" role="img" aria-label="{words.text(told)}">{drawing}</div>'
    return f'<figure class="chart {kind}">{_legend(more)}{plot}</figure>'
