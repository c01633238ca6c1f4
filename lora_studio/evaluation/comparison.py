"""What tells trained adapters apart: paired differences, a verdict in words, and the settings that differ.

All were judged with the same prompts and seeds. So the difference of two is known better than either: both are
resampled together, and what a prompt or seed does to both cancels out (paired bootstrap, Efron & Tibshirani 1993).
Letters: R runs, K resamplings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_studio.config.settings import Settings
from lora_studio.evaluation.judgements import Judgement
from lora_studio.evaluation.value import Value, number
from lora_studio.language import in_row, in_sequence, tr

_SEED = 6
_QUANTILES = (0.025, 0.975)
_SAME = {"name"}
"""Settings that always differ, and say nothing."""


@dataclass(frozen=True)
class Contestant:
    """What is compared: one judged state, or states of several runs that differ in their seed alone and are averaged.

    Attributes:
        name: for people.
        place: its number in the comparison; each draws its runs by a random sequence of its own.
        judgements: all with samples of the same K resamplings.
    """

    name: str
    place: int
    judgements: tuple[Judgement, ...]

    def value(self, measure: str) -> Value:
        """The mean over the runs, with a 95 % bootstrap interval over prompts, seeds and runs."""
        return _interval(self._mean(measure), self.samples(measure))

    def samples(self, measure: str) -> np.ndarray:
        """(K,) means over runs.

        Of R runs R - 1 are drawn for each resampling, with replacement: with R the spread of the mean would come out
        too small by (R - 1) / R, which is half for two runs (Rao & Wu 1988).
        """
        table = np.array([one.samples[measure] for one in self.judgements])
        runs, resamplings = table.shape
        if runs == 1:
            return table[0]
        drawn = np.random.default_rng([_SEED, self.place]).integers(runs, size=(runs - 1, resamplings))
        return np.take_along_axis(table, drawn, axis=0).mean(axis=0)

    def _mean(self, measure: str) -> float:
        values: list[Value] = [
            one.extra[measure] if measure in one.extra else getattr(one, measure) for one in self.judgements
        ]
        return float(np.mean([one.value for one in values]))

    @property
    def measures(self) -> list[str]:
        """What was measured of all its runs, further columns last."""
        return [name for name in self.judgements[0].samples if all(name in one.samples for one in self.judgements)]

    @property
    def level(self) -> float:
        """The subjects' value of the training pictures."""
        return float(np.mean([one.level.value for one in self.judgements]))

    @property
    def fades(self) -> bool:
        """Whether subjects have faded, beyond doubt."""
        high = self.value("subject").high
        return high is not None and high < self.level

    @property
    def copies(self) -> int:
        """Pictures of new prompts that may be copies, of all runs."""
        return sum(len(one.copies) for one in self.judgements)

    @property
    def copied(self) -> bool:
        """Whether one of its runs gives training pictures back."""
        return any(one.copied for one in self.judgements)

    def difference(self, other: Contestant, measure: str) -> Value:
        """By how much it exceeds ``other``, with the 95 % interval of the paired difference."""
        value = self._mean(measure) - other._mean(measure)
        return _interval(value, self.samples(measure) - other.samples(measure))


def _interval(value: float, resampled: np.ndarray) -> Value:
    """``value`` with the 95 % interval of ``resampled`` around its mean, as ``style.interval``."""
    low, high = (float(end) for end in np.quantile(resampled, _QUANTILES) - resampled.mean())
    return Value(value, value + low, value + high)


def told_apart(difference: Value) -> bool:
    """Whether the interval of a difference leaves 0 out."""
    assert difference.low is not None and difference.high is not None
    return not difference.low <= 0 <= difference.high


def verdict(first: Contestant, other: Contestant, shared: bool = True) -> str:
    """What can be said of ``other`` against ``first``, in sentences.

    Args:
        shared: whether the style of both was measured against the same pictures.
    """
    said = [_style(first, other, shared), *_faults(first, other), _drift(first, other)]
    return in_sequence([*said, _choice(first, other) if shared else ""])


def _style(first: Contestant, other: Contestant, shared: bool) -> str:
    difference = other.difference(first, "style")
    more, apart = difference.value > 0, told_apart(difference)
    told = {"first": first.name, "other": other.name, "points": signed(difference, ".0f")}
    if shared and apart:
        if more:
            return tr("{other} has more of the style than {first} ({points} points).", **told)
        return tr("{other} has less of the style than {first} ({points} points).", **told)
    if shared:
        return tr("The styles of {first} and {other} cannot be told apart ({points} points).", **told)
    if apart:
        if more:
            return tr(
                "{other} learned more of its own pictures' style than {first} of its own ({points} points).", **told
            )
        return tr("{other} learned less of its own pictures' style than {first} of its own ({points} points).", **told)
    return tr(
        "How much {first} and {other} learned of their own pictures' styles cannot be told apart ({points} points).",
        **told,
    )


def _faults(first: Contestant, other: Contestant) -> list[str]:
    found = [_fading([one.name for one in (first, other) if one.fades])]
    if told_apart(subject := other.difference(first, "subject")):
        value = signed(subject, ".2f")
        found.append(
            tr("{name} shows its prompts more clearly ({value}).", name=other.name, value=value)
            if subject.value > 0
            else tr("{name} shows its prompts less clearly ({value}).", name=other.name, value=value)
        )
    for one in (first, other):
        found += [
            tr("{name}: {copies}.", name=one.name, copies=run.told_copies) for run in one.judgements if run.copied
        ]
    return found


def _fading(names: Sequence[str]) -> str:
    if not names:
        return tr("Subjects hold in both.")
    if len(names) == 1:
        return tr("Subjects fade in {name}.", name=names[0])
    return tr("Subjects fade in {first} and in {other}.", first=names[0], other=names[1])


def _drift(first: Contestant, other: Contestant) -> str:
    difference = other.difference(first, "drift")
    if not told_apart(difference):
        return ""
    value = signed(difference, ".2f")
    if difference.value > 0:
        return tr("{name} changes prompts without the trigger word more ({value}).", name=other.name, value=value)
    return tr("{name} changes prompts without the trigger word less ({value}).", name=other.name, value=value)


def _choice(first: Contestant, other: Contestant) -> str:
    """Which one to keep, where the measures say so."""
    style = other.difference(first, "style")
    if told_apart(style):
        better, worse = (other, first) if style.value > 0 else (first, other)
        if better.fades > worse.fades:
            return tr(
                "{better} has more of the style, and {worse} keeps to its prompts: choose.",
                better=better.name,
                worse=worse.name,
            )
        if better.copied > worse.copied:
            return tr("{name} has more of the style, but may have copied: look at its pictures.", name=better.name)
        return tr("By these measures {name} is the one to keep.", name=better.name)
    if _sound(first) != _sound(other):
        sound = first if _sound(first) else other
        return tr("By these measures {name} is the one to keep.", name=sound.name)
    return tr("The measures do not settle which to keep: look at the sheet.")


def _sound(one: Contestant) -> bool:
    return not one.fades and not one.copied


def signed(value: Value, how: str) -> str:
    """A difference for people: ``+9 [+4, +14]``."""
    assert value.low is not None and value.high is not None
    low, high = number(value.low, f"+{how}"), number(value.high, f"+{how}")
    return f"{number(value.value, f'+{how}')} [{low}, {high}]"


def differing(settings: Sequence[Sequence[Settings]]) -> dict[str, tuple[str, ...]]:
    """The settings that differ, by their keys, with the value of each contestant as text; several values where its
    runs differ among themselves.
    """
    tables = [[one.flat() for one in group] for group in settings]
    rows = {key: tuple(_values(group, key) for group in tables) for key in tables[0][0] if key not in _SAME}
    return {key: row for key, row in rows.items() if len(set(row)) > 1}


def _values(group: Sequence[Mapping[str, Any]], key: str) -> str:
    return ", ".join(dict.fromkeys(_text(one[key]) for one in group))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return tr("on") if value else tr("off")
    if isinstance(value, list | tuple):
        return in_row(map(_text, value)) if value else tr("none")
    return f"{value:g}" if isinstance(value, float) else str(value) or tr("none")


def pictures_seen(settings: Settings, step: int) -> int:
    """How many pictures, counted each time, training had seen at ``step``."""
    return step * settings.optimizer.batch * settings.optimizer.accumulate
