"""The learning rate over a run: a pure function of the step, so that a resumed run needs no state for it.

One row for each schedule. Nothing here imports torch: settings, the page and the command line read the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lora_studio.errors import SettingsError
from lora_studio.language import tr


class ScheduleSettings(Protocol):
    """The settings that shape a schedule; ``OptimizerSettings`` is one."""

    @property
    def schedule(self) -> str: ...
    @property
    def warmup(self) -> float: ...
    @property
    def cycles(self) -> int: ...
    @property
    def decay_share(self) -> float: ...


@dataclass(frozen=True)
class Schedule:
    """What the studio knows of one schedule."""

    name: str
    """The value of the setting ``schedule``."""
    title: str
    """Its name on the page."""
    help: str
    """What it is good for: a clause without a full stop."""
    curve: Callable[[float, ScheduleSettings], float]
    """(share of the steps after the warm-up that is done, from 0 up to but not including 1; settings) -> what the
    learning rate is multiplied by.
    """


def _cosine(done: float) -> float:
    """Half a cosine (Loshchilov & Hutter 2017, eq. 5)."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


def _restarts(done: float, values: ScheduleSettings) -> float:
    """``cycles`` half cosines of one length, each from the full rate (Loshchilov & Hutter 2017, §3)."""
    return _cosine(done * values.cycles % 1.0)


def _rex(done: float, values: ScheduleSettings) -> float:
    """Reflected exponential (Chen et al. 2022, *REX: Revisiting Budgeted Training with an Improved Schedule*, §4)."""
    return (1.0 - done) / (0.5 + 0.5 * (1.0 - done))


def _stable(done: float, values: ScheduleSettings) -> float:
    """1, then over the last ``decay_share`` of the steps 1 − √ of their share (Hägele et al. 2024, §3)."""
    share = min(1.0, values.decay_share / (1.0 - values.warmup))
    return 1.0 if done < 1.0 - share else 1.0 - math.sqrt((done - 1.0 + share) / share)


_ROWS = (
    Schedule(
        "constant", "Constant", "keeps the rate: add steps later, and average the states", lambda done, values: 1.0
    ),
    Schedule("cosine", "Cosine", "falls along half a cosine, the usual choice", lambda done, values: _cosine(done)),
    Schedule("linear", "Linear", "falls along a line", lambda done, values: 1.0 - done),
    Schedule("restarts", "Cosine with restarts", "gives one state to keep at the end of each cosine", _restarts),
    Schedule("rex", "REX", "stays high for longer than a line, and suits short runs", _rex),
    Schedule(
        "stable-decay",
        "Constant, then decay",
        "keeps the rate and lowers it at the end: branch from a state before the decay for a longer or shorter run",
        _stable,
    ),
)
SCHEDULES: dict[str, Schedule] = {row.name: row for row in _ROWS}
"""Name -> row, in the order in which they are offered."""


def get(name: str) -> Schedule:
    """The schedule that the setting ``schedule`` names.

    Raises:
        SettingsError: there is none.
    """
    if name not in SCHEDULES:
        raise SettingsError(
            tr("There is no schedule named {name!r}.", name=name),
            where="schedule",
            do=tr("Choose one of: {names}.", names=", ".join(SCHEDULES)),
        )
    return SCHEDULES[name]


def factor(step: int, total: int, values: ScheduleSettings) -> float:
    """What the learning rate is multiplied by at ``step`` (0 … total−1): it rises linearly over the first ``warmup``
    share of the steps, then follows the schedule's curve.
    """
    rising = math.ceil(total * values.warmup)
    if step < rising:
        return (step + 1) / rising
    return get(values.schedule).curve((step - rising) / max(1, total - rising), values)
