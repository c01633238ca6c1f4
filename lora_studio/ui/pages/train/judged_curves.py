"""What was measured of the saved states, over the steps of their run: how much of the style they learned, and whether
subjects hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from lora_studio.evaluation.judgements import Judgement
from lora_studio.evaluation.value import STYLE_SCALE, SUBJECT_SCALE, TOO_FEW, Value, number
from lora_studio.language import tr
from lora_studio.ui import plots, words
from lora_studio.ui.plots import Frame, Point

_ROOM = 700
"""Up to here, of 1000, a label has room at the right."""


class Highlight(NamedTuple):
    """The state that is proposed to be kept, and the one that is shown, by their steps."""

    proposed: int | None = None
    shown: int | None = None


class _StatePoint(NamedTuple):
    """What was measured of one state. ``wrong``: it is drawn as a warning; ``vague``: its interval tells nothing."""

    step: int
    value: float
    low: float
    high: float
    text: str
    wrong: bool
    vague: bool


def style(states: Sequence[Judgement], total: int, highlight: Highlight) -> str:
    """The chart of the style learned, in per cent, as HTML. ``total`` is the last step of the run."""
    points = [
        _point(
            one.step,
            one.style,
            STYLE_SCALE,
            tr("Step {step:,}: style {percent}", step=one.step, percent=percent(one.style)),
        )
        for one in states
    ]
    frame = _frame(points, total, 0, STYLE_SCALE)
    return _Chart(tr("Style"), tr("style learned"), frame, points, highlight, " %", [(0, 0)]).html()


def subjects(states: Sequence[Judgement], total: int, highlight: Highlight) -> str:
    """The chart of the subjects as HTML: they hold on or above the level of the training pictures, and fade below."""
    points = [_point(one.step, one.subject, SUBJECT_SCALE, _subject(one), one.fades) for one in states]
    level = states[-1].level.value
    frame = _frame(points, total, min(0, level), max(SUBJECT_SCALE, level * 1.2))
    name = f'<span class="level-name" style="top:{frame.y(level) / 10:g}%">{tr("training pictures")}</span>'
    line = f'<path class="level" d="M0 {frame.y(level):g}H1000"/>'
    fading = next((one for one in points if one.wrong), None)
    fades = f'<span class="fades" style="{_beside(frame, fading.step)}">{tr("subjects fade")}</span>' if fading else ""
    marks = "".join(_copies(frame, one) for one in states if one.copies)
    key = f'<span class="key-copies">▲ {tr("possible copies")}</span>' if marks else ""
    return _Chart(tr("Subjects"), tr("subjects"), frame, points, highlight).html(line, name + fades + marks, key)


def percent(value: Value) -> str:
    """A share with its interval.

    >>> percent(Value(86.2, 80.1, 91.4)), percent(Value(86.2)), percent(Value(6, -90, 91))
    ('86 % (80 to 91)', '86 %', '6 % (too few prompts to tell)')
    """
    margin = interval(value)
    return f"{number(value.value)} %" + (f" ({margin})" if margin else "")


def interval(value: Value) -> str:
    """The interval of a share, or that it tells nothing; empty where it has none."""
    return value.margin(STYLE_SCALE, tr("{} to {}"))


def _point(step: int, value: Value, scale: float, text: str, wrong: bool = False) -> _StatePoint:
    """The ends of the interval are the value itself where it has none, or one that tells nothing."""
    vague, (middle, low, high) = value.vague(scale), value
    low, high = middle if low is None or vague else low, middle if high is None or vague else high
    return _StatePoint(step, middle, low, high, text, wrong, vague)


def _subject(one: Judgement) -> str:
    told = tr(
        "Step {step:,}: {subjects}, {subject} to {level}",
        step=one.step,
        subjects=one.told_subjects,
        subject=number(one.subject.value, ".2f"),
        level=number(one.level.value, ".2f"),
    )
    return f"{told}, {words.counted(len(one.copies), 'possible copy', 'possible copies')}" if one.copies else told


def _frame(points: Sequence[_StatePoint], total: int, low: float, high: float) -> Frame:
    """Holds all intervals, and ``low`` to ``high``."""
    return Frame(
        max(total, points[-1].step), min(low, *(one.low for one in points)), max(high, *(one.high for one in points))
    )


@dataclass(frozen=True)
class _Chart:
    """One measure over the steps.

    Attributes:
        what: the measure in the legend.
        origin: points that the line begins with, before the first state.
    """

    name: str
    what: str
    frame: Frame
    points: Sequence[_StatePoint]
    highlight: Highlight
    unit: str = ""
    origin: Sequence[Point] = ()

    def html(self, lines: str = "", marks: str = "", key: str = "") -> str:
        """A line with its band, and a button for each state that asks to show it.

        Args:
            lines: further paths.
            marks: further elements over the drawing.
            key: further entries of the legend.
        """
        frame, line = self.frame, [*self.origin, *((one.step, one.value) for one in self.points)]
        grid = "".join(
            f'<path class="grid" d="M0 {frame.y(y):g}H1000"/>' for y in plots.ticks(frame.low, frame.high, 4)
        )
        svg = f'{grid}{"".join(self._bands())}{lines}<path class="trend" d="{frame.line(line)}"/>'
        over = plots.labels(frame, self.unit, 4) + marks + plots.flag(frame, self.highlight.proposed)
        spoken = tr("{measure} over the steps", measure=self.name)
        buttons = "".join(_button(frame, one, self.highlight.shown) for one in self.points)
        return (
            f'<figure class="chart"><h3>{self.name}</h3><figcaption>{self._legend()}{key}</figcaption>'
            f'<div class="plot still low" role="group" aria-label="{spoken}">{plots.in_svg(svg)}'
            f"{over}{buttons}</div></figure>"
        )

    def _bands(self) -> Iterator[str]:
        """The intervals of states that follow one another, without those that tell nothing."""
        known = [(step, value, value, False) for step, value in self.origin]
        known += [(one.step, one.low, one.high, one.vague) for one in self.points]
        for vague, group in groupby(known, key=lambda one: one[3]):
            if not vague:
                ends = list(group)
                low, high = [(step, low) for step, low, _, _ in ends], [(step, high) for step, _, high, _ in ends]
                yield f'<path class="band" d="{self.frame.line([*high, *reversed(low)])}Z"/>'

    def _legend(self) -> str:
        vague = {one.vague for one in self.points}
        return (
            f'<span class="key trend">{self.what}</span>'
            + f'<span class="key band">{tr("95 % interval")}</span>' * (False in vague)
            + f"<span>{tr('no band: {why}', why=TOO_FEW)}</span>" * (True in vague)
        )


def _button(frame: Frame, one: _StatePoint, shown: int | None) -> str:
    text = words.text(one.text)
    return (
        f'<button type="button" class="point{" wrong" * one.wrong}" data-act="show" data-step="{one.step}" '
        f'aria-pressed="{str(one.step == shown).lower()}" title="{text}" aria-label="{text}" '
        f'style="{frame.at(one.step, one.value)}"></button>'
    )


def _copies(frame: Frame, one: Judgement) -> str:
    return f'<span class="copies" style="--at:{frame.x(one.step) / 10:g}%">▲ {len(one.copies)}</span>'


def _beside(frame: Frame, step: int) -> str:
    """Right of the line of a step, or as far right as there is room, as CSS."""
    return "right:0" if frame.x(step) > _ROOM else frame.left(step)
