"""What was measured of the library's adapters, by the state of their run that they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from lora_studio import runs
from lora_studio.evaluation import judgements, strength
from lora_studio.evaluation.strength import StrengthRange
from lora_studio.evaluation.value import STYLE_SCALE, Value, number
from lora_studio.language import tr
from lora_studio.runs import Run
from lora_studio.runs.library import Entry


class Measures(NamedTuple):
    """Of one adapter; as in ``judgements.Judgement``."""

    style: Value
    subject: Value
    level: Value
    drift: Value
    fades: bool
    copied: bool
    copies: str
    """What was found of copies."""
    strength: StrengthRange | None

    @property
    def line(self) -> str:
        """For a card."""
        style = tr("style {style} %", style=number(self.style.value))
        subjects = tr("subjects fade") if self.fades else tr("subjects hold")
        return " · ".join([style, subjects, *([tr("copies")] if self.copied else [])])

    @property
    def facts(self) -> list[tuple[str, str]]:
        """For the adapter's details, by name."""
        style, margin = tr("{style} %", style=number(self.style.value)), self.style.margin(STYLE_SCALE)
        measured = {"subject": self.subject.value, "level": self.level.value}
        fade = tr("Fade: {subject:.2f} (training pictures {level:.2f})", **measured)
        hold = tr("Hold: {subject:.2f} (training pictures {level:.2f})", **measured)
        copies = str(self.copies)
        return [
            (tr("Style"), tr("{style}, {margin}", style=style, margin=margin) if margin else style),
            (tr("Subjects"), fade if self.fades else hold),
            (tr("Copies"), copies[:1].upper() + copies[1:]),
            (tr("Drift"), tr("{drift:.2f} (0 is unchanged, 1 another seed)", drift=self.drift.value)),
            (tr("Strength"), self.strength.sentence if self.strength else ""),
        ]


def of(entry: Entry, outputs: Path) -> Measures | None:
    """What was measured of ``entry``; None if it was not judged."""
    return None if entry.state is None else _of_run(Run(outputs / entry.run)).get(entry.state)


def of_all(entries: list[Entry], outputs: Path) -> dict[str, Measures]:
    """What was measured of those ``entries`` that were judged, by their paths."""
    by_run = {name: _of_run(Run(outputs / name)) for name in {one.run for one in entries if one.state is not None}}
    found = {one.path: by_run[one.run].get(one.state) for one in entries if one.state is not None}
    return {path: measures for path, measures in found.items() if measures}


def _of_run(run: Run) -> Mapping[int, Measures]:
    """By step. A run whose judgements have not changed is not read again."""
    stamps = []
    for entry in runs.entries(run.evaluation, []):
        for name in ("judged.json", "strength.json"):
            try:
                stamps.append((entry.name, name, os.stat(Path(entry.path, name)).st_mtime_ns))
            except OSError:
                continue
    return _read(run, tuple(sorted(stamps)))


@lru_cache(maxsize=1024)
def _read(run: Run, _stamps: tuple[tuple[str, str, int], ...]) -> Mapping[int, Measures]:
    return {
        one.step: Measures(
            one.style,
            one.subject,
            one.level,
            one.drift,
            one.fades,
            one.copied,
            one.told_copies,
            strength.known(run, one.step),
        )
        for one in judgements.judged(run)
    }
