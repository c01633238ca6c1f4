"""What is known of a run from its events. Pages and commands show this and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lora_studio import events as e
from lora_studio.errors import RunError
from lora_studio.events import Event, State
from lora_studio.jobs import eventlog
from lora_studio.language import tr
from lora_studio.runs import Run

MOST_STEPS, RECENT = 6_000, 1_000
"""Steps that a view holds; and how many of them are the latest, without gaps."""


SMOOTHING = 0.9
"""Weight on the past in the loss curve and in the average loss."""
_AVERAGED = 100
"""Steps that the average loss is computed from; 0.9¹⁰⁰ of the weight lies on those before."""


def smoothed(values: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average with ``weight`` (0 to 1) on the past, bias-corrected as in Adam (Kingma & Ba 2015,
    section 3).
    """
    average, seen, line = 0.0, 0.0, []
    for value in values:
        average = weight * average + (1 - weight) * value
        seen = weight * seen + (1 - weight)
        line.append(average / seen)
    return line


@dataclass
class RunView:
    """All that is known of a run after its events so far; of very many steps, a sample."""

    state: State = State.QUEUED
    left_queue: bool = False
    """It ended while it waited, usually since it was taken out of the queue."""
    stopped_early: bool = False
    """It had its turn, and ended before its first step since it was asked to."""
    preparing: e.Preparing | None = None
    """What was prepared last: before the first step, or for judging since then."""
    base: e.BaseLoaded | None = None
    started: e.Started | None = None
    start: e.LayersSeen | None = None
    """What its layers saw before the first step, where its start goes by that."""
    rate: e.RateFound | None = None
    """Where it looked for its learning rate, what it found."""
    steps: list[e.StepDone] = field(default_factory=list)
    measures: dict[str, list[e.Measured]] = field(default_factory=dict)
    """Each measure's values by its name, in the order of the steps; ``validation`` is one of them."""
    judged: list[e.Judged] = field(default_factory=list)
    """What was judged while it trained, in the order of the steps."""
    kept: e.StateKept | None = None
    previews: list[e.PreviewReady] = field(default_factory=list)
    checkpoints: list[e.CheckpointSaved] = field(default_factory=list)
    warnings: list[e.Warned] = field(default_factory=list)
    finished: e.Finished | None = None
    failed: e.Failed | None = None
    latest: Event | None = None
    _stride: int = 1

    @property
    def last(self) -> e.StepDone | None:
        return self.steps[-1] if self.steps else None

    @property
    def never_began(self) -> bool:
        """Whether it was asked to end before its first step: nobody disturbed it, and there is nothing of it."""
        return self.left_queue or self.stopped_early

    @property
    def average_loss(self) -> float:
        """Where the loss curve is now: the loss of one step says little, since each draws other pictures and noise."""
        recent = [one.loss for one in self.steps[-_AVERAGED:]]
        if recent:
            return smoothed(recent, SMOOTHING)[-1]
        return self.finished.final_loss if self.finished else float("nan")

    @property
    def unit(self) -> str:
        """What a batch is made of, for people: a picture, or a pair of prompts."""
        return "pair" if self.started and self.started.pairs else "picture"

    @property
    def validations(self) -> list[e.Measured]:
        """The validation losses."""
        return self.measures.get("validation", [])

    @property
    def progress(self) -> float:
        """Share of the steps done, 0…1."""
        return self.last.step / self.started.total_steps if self.last and self.started else 0.0

    def apply(self, event: Event) -> None:
        """Takes one event in."""
        match event:
            case e.StateChanged():
                waited = isinstance(self.latest, e.StateChanged) and self.latest.state is State.QUEUED
                self.left_queue = waited and event.state is State.INTERRUPTED
                self.stopped_early = event.asked
                self.state = event.state
            case e.Preparing():
                self.preparing = event
            case e.BaseLoaded():
                self.base = event
            case e.Started():
                self._begin(event)
            case e.LayersSeen():
                self.start = event
            case e.RateFound():
                self.rate = event
            case e.StepDone():
                self.steps.append(event)
                if len(self.steps) > MOST_STEPS:
                    self._thin()
            case e.Validated():
                self._measured(
                    e.Measured(
                        at=event.at, step=event.step, name="validation", title=tr("Validation"), value=event.loss
                    )
                )
            case e.Measured():
                self._measured(event)
            case e.Judged():
                self.judged = [one for one in self.judged if one.step != event.step] + [event]
            case e.StateKept():
                self.kept = event
            case e.PreviewReady():
                self.previews.append(event)
            case e.CheckpointSaved():
                self.checkpoints.append(event)
            case e.RolledBack():
                self._forget_after(event.step)
                self.warnings.append(e.Warned(at=event.at, what=event.what))
            case e.Warned():
                self.warnings.append(event)
            case e.Finished():
                self.finished, self.state = event, State.FINISHED
            case e.Failed():
                self.failed, self.state = event, State.FAILED
        self.latest = event

    def _measured(self, event: e.Measured) -> None:
        self.measures.setdefault(event.name, []).append(event)

    def _begin(self, started: e.Started) -> None:
        """A resumed run starts from a saved state: what came after that is dropped."""
        self.started, self.preparing, self.failed, self.finished, self.kept = started, None, None, None, None
        self._forget_after(started.first_step)

    def _thin(self) -> None:
        """Of a long run's earlier steps every second, fourth … is kept, evenly, so that a page draws no more after a
        million steps than after a thousand.
        """
        older, recent = self.steps[:-RECENT], self.steps[-RECENT:]
        while len(kept := [one for one in older if one.step % self._stride == 0]) > MOST_STEPS // 2:
            self._stride *= 2
        self.steps = kept + recent

    def _forget_after(self, step: int) -> None:
        self.steps = [one for one in self.steps if one.step <= step]
        self.measures = {name: [one for one in values if one.step <= step] for name, values in self.measures.items()}
        self.judged = [one for one in self.judged if one.step <= step]
        self.previews = [one for one in self.previews if one.step <= step]


class Follower:
    """Folds a run's log as it grows, reading only what is new."""

    def __init__(self, run: Run):
        self.run, self.view, self._offset = run, RunView(), 0

    def update(self) -> RunView:
        """The view as of now; while the log cannot be read, one of a failed run that says why."""
        while True:
            before = self._offset
            try:
                found, self._offset = eventlog.read(self.run.events_file, before)
            except RunError as error:
                return RunView(state=State.FAILED, failed=e.Failed.of(error))
            for event in found:
                self.view.apply(event)
            if self._offset == before:
                return self.view


def fold(run: Run) -> RunView:
    """The view of the whole log."""
    return Follower(run).update()
