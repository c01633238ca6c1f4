"""What is known of a run's judged states: the measures, which state to keep and at what strength, and the judging that
is at work. All of it is read from the run's folder, and only when something there has changed.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_studio.errors import RunError
from lora_studio.evaluation import judgements, strength
from lora_studio.evaluation.advice import Advice, advise
from lora_studio.evaluation.judgements import Judgement, JudgingPlan
from lora_studio.evaluation.strength import StrengthRange
from lora_studio.jobs import judging
from lora_studio.jobs.judging import JudgingView
from lora_studio.runs import Run, checkpoints, keeping

_REMEMBERED = 20
"""Runs whose judgements are kept in memory."""


@dataclass(frozen=True)
class Evaluation:
    """What is known of a run's states.

    Attributes:
        states: the judged ones, in the order of their steps.
        plan: what was drawn with each.
        strength: of the adapter that ``advice`` proposes.
        saved: steps of the states that the run could resume from.
        unjudged: steps of the states that can be judged and were not.
        sizes: bytes of the adapters of all states, by their steps.
        kept: adapters that were kept, by their steps.
        job: the judging that was started last, if there was one.
    """

    states: tuple[Judgement, ...] = ()
    advice: Advice | None = None
    plan: JudgingPlan | None = None
    strength: StrengthRange | None = None
    saved: tuple[int, ...] = ()
    unjudged: tuple[int, ...] = ()
    sizes: Mapping[int, int] = field(default_factory=dict)
    kept: Mapping[int, Path] = field(default_factory=dict)
    job: JudgingView | None = None

    @property
    def steps(self) -> frozenset[int]:
        """Those of all states whose adapter is there."""
        return frozenset((*self.unjudged, *(one.step for one in self.states)))

    @property
    def proposed(self) -> int | None:
        """The step that is proposed to be kept."""
        return self.advice.step if self.advice else None

    @property
    def works(self) -> bool:
        """Whether states are being judged, or wait for it."""
        return self.job is not None and not self.job.state.ended

    def at(self, step: int | None) -> Judgement | None:
        """The judged state of a step."""
        return next((one for one in self.states if one.step == step), None)

    def adapter(self, run: Run, step: int) -> Path:
        """The adapter of the state of ``step``, as other rooms list it: the kept one, else the saved one, else the
        one that was kept with its previews.

        Raises:
            RunError: there is none.
        """
        saved = run.checkpoint(step) / judgements.ADAPTER
        return self.kept.get(step) or (
            saved if step in self.saved and saved.is_file() else keeping.state_file(run, step)
        )

    def shown(self, step: int | None) -> int | None:
        """The judged state to show if the user chose ``step``: that, or else the one that is proposed."""
        return step if self.at(step) else self.proposed


class EvaluationCache:
    """The evaluations of the runs in one outputs folder, for all tabs."""

    def __init__(self) -> None:
        self._known: OrderedDict[Path, tuple[tuple[Any, ...], Evaluation]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, run: Run) -> Evaluation:
        """What is known of the run's states now."""
        mark = fingerprint(run)
        with self._lock:
            before, known = self._known.get(run.folder, ((), Evaluation()))
            if before != mark or (known.job and known.job.waits_for):  # what it waits for is not the run's
                known = _read(run)
                self._known[run.folder] = mark, known
            self._known.move_to_end(run.folder)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
            return known


def fingerprint(run: Run) -> tuple[Any, ...]:
    """Changes with everything that an evaluation is read from, and with the run's adapters, whose headers take measured
    strengths a moment after they are known.
    """
    job, judged = judging.of(run), _named(judgements.folder(run), "step-")
    files = (path for step in judged for path in (step / "judged.json", step / "strength.json"))
    work = (job.alive, job.stop_file.exists(), _stamp(job.events_file)) if job else None
    kept = tuple((path, *_stamp(path)) for path in (run.adapter_file, *_named(run.folder, f"{run.name}-step-")))
    return tuple((path.parent.name, *_stamp(path)) for path in files), _saved(run), kept, work


def _named(folder: Path, start: str) -> list[Path]:
    """What is in a folder whose name begins so."""
    try:
        with os.scandir(folder) as found:
            return sorted(Path(one.path) for one in found if one.name.startswith(start))
    except OSError:
        return []


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _saved(run: Run) -> tuple[int, ...]:
    try:
        return tuple(one.step for one in checkpoints.listed(run))
    except RunError:  # the list of states says so
        return ()


def _drawable(run: Run) -> dict[int, int]:
    """Steps of the states that can be judged, with the sizes of their adapters in bytes."""
    try:
        return {step: _stamp(path)[0] for step, path in judgements.states(run).items()}
    except RunError:  # there is none
        return {}


def _read(run: Run) -> Evaluation:
    states, job = tuple(judgements.judged(run)), judging.of(run)
    advice = advise(states)
    known = judgements.conditions(run, states[-1].step) if states else None
    saved, drawable = _saved(run), _drawable(run)
    steps = {*saved, *drawable, *(one.step for one in states)}
    return Evaluation(
        states=states,
        advice=advice,
        plan=known.plan if known else None,
        strength=strength.known(run, advice.step) if advice else None,
        saved=saved,
        unjudged=tuple(sorted(drawable.keys() - {one.step for one in states})),
        sizes=drawable,
        kept={step: path for step in sorted(steps) if (path := keeping.kept(run, step))},
        job=job.view() if job else None,
    )
