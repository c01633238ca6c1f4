"""Judging as a job: the saved states of a run are judged one after the other. The parent's side: imports no torch.

A run has one such job, in ``evaluation/job`` (``job`` has its files). A judged state lies beside it in
``evaluation/step-N`` and is not judged again, so a job that was stopped or killed continues with the next state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lora_studio import events as e
from lora_studio import files
from lora_studio.errors import RunError
from lora_studio.evaluation import judgements
from lora_studio.evaluation.strength import STAGE
from lora_studio.events import State
from lora_studio.jobs.job import Job, read
from lora_studio.language import english, ntr, tr
from lora_studio.runs import Run


class JudgingOrder(BaseModel):
    """What a job is asked for, as ``evaluation.judging.judge`` takes it: no prompts and no seeds are those of the run's
    settings, no steps are all states.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: tuple[str, ...] = ()
    seeds: int = Field(0, ge=0, le=16)
    steps: tuple[int, ...] = ()


@dataclass
class JudgingView:
    """All that is known of a job. ``done`` of ``total`` states are judged; ``total`` is 0 until it is known."""

    state: State = State.QUEUED
    stage: str = ""
    """What it does now, in words."""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    waits_for: str = ""
    """What it waits for, in the middle of a sentence; empty if it does not wait."""
    stopping: bool = False
    """Whether it was asked to stop, and has not ended."""
    judged: list[e.Judged] = field(default_factory=list)
    """In the order in which they came."""
    strengths: float = 0.0
    """How much work measuring strengths is, once all states are judged, counted in states."""
    measured: float = 0.0
    """The share of that which is done, 0 to 1."""
    error: e.Failed | None = None
    """Why it failed, or that its process vanished."""

    @property
    def progress(self) -> float:
        """Share of the work that is done, 0 to 1."""
        whole = self.total + self.strengths
        return min((self.done + self.strengths * self.measured) / whole, 1.0) if whole else 0.0

    @property
    def can_resume(self) -> bool:
        """Whether it ended before all states were judged."""
        return self.state in (State.FAILED, State.INTERRUPTED)


@dataclass(frozen=True)
class JudgingJob(Job):
    """The job that judges a run. It stops within a denoising step, and keeps the states that it has judged."""

    worker, noun = "lora_studio.jobs.judging_worker", tr("judging")

    @property
    def run(self) -> Run:
        return Run(self.folder.parent.parent)

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def outputs(self) -> Path:
        return self.run.folder.parent

    @property
    def title(self) -> str:
        return tr("the judging of {name}", name=self.run.name)

    @property
    def activity(self) -> str:
        return tr("the states of a run are judged")

    def order(self) -> JudgingOrder:
        """What it was asked for.

        Raises:
            RunError: the file is missing, damaged or of another version.
        """
        try:
            return JudgingOrder.model_validate_json(self.order_file.read_bytes())
        except (OSError, ValidationError) as error:
            what = tr("The judging job's {name} cannot be read.", name=self.order_file.name)
            do = tr("Judge the run anew: states that were judged are kept.")
            raise RunError(what, where=self.order_file, do=do) from error

    def begin(self, order: JudgingOrder) -> None:
        """Starts it with ``order``, in place of an earlier one. Raises as ``resume``."""

        def replace() -> None:
            files.unlink(self.events_file)
            files.write(self.order_file, order.model_dump_json())

        self._start(replace)

    def view(self) -> JudgingView:
        alive = self.alive
        view = fold(read(self))
        kept = ntr(
            view.done,
            "{count} state is judged and will not be judged again.",
            "{count} states are judged and will not be judged again.",
        )
        self.settle(view, alive, kept)
        view.stopping = not view.state.ended and self.stop_file.exists()
        return view


def of(run: Run) -> JudgingJob | None:
    """The latest job that judged the run, if there was one."""
    job = JudgingJob(run.judging)
    return job if job.order_file.is_file() else None


def start(run: Run, prompts: Sequence[str] = (), seeds: int = 0, steps: Sequence[int] = ()) -> JudgingJob:
    """Starts judging the run's states; while runs or other jobs are at work, it waits for its turn. One that is at work
    with the same order is returned as it is.

    Raises:
        RunError: the run has no such state; or it is being judged with another order.
        SettingsError: the run's settings cannot be read.
        MachineError: the run's folder cannot be written, or no process can be started.
    """
    job, order = JudgingJob(run.judging), JudgingOrder(prompts=tuple(prompts), seeds=seeds, steps=tuple(sorted(steps)))
    judgements.states(run, order.steps)
    if job.alive and not fold(read(job)).state.ended:
        if job.order() != order:
            do = tr("Wait for its end, or cancel it with python3 app.py stop {name}", name=run.name)
            raise RunError(
                tr("{name} is being judged, with other prompts, seeds or steps.", name=run.name),
                where=run.folder,
                do=do,
            )
        return job
    try:
        files.make_folder(job.folder)
    except OSError as error:
        raise files.refusal(error, tr("The judging cannot be started"), run.folder) from error
    job.begin(order)
    return job


def fold(log: list[e.Event]) -> JudgingView:
    """The view after the events of a job's log."""
    view, strengths = JudgingView(), _Pace()
    for event in log:
        match event:
            case e.StateChanged():
                view.state, view.stage = event.state, ""
                if event.state is State.QUEUED:
                    view.error, view.judged, view.measured, strengths = None, [], 0.0, _Pace()
            case e.Preparing():
                view.stage = event.stage
                if english(event.stage).startswith(STAGE):
                    view.measured, view.seconds_left = strengths.at(event)
            case e.JudgingStarted():
                view.state, view.total, view.strengths = State.RUNNING, event.total, event.strengths
            case e.Judged():
                view.judged.append(event)
                view.done = len(view.judged)
                view.seconds_left = _left(view)
            case e.Failed():
                view.state, view.error = State.FAILED, event
    if view.state is not State.RUNNING:
        view.seconds_left = None
    return view


def _left(view: JudgingView) -> float | None:
    """Seconds that the states take that are not judged, and then the strengths, at the pace of the states that were;
    None if that is not known.
    """
    paces = [one.seconds for one in view.judged if one.seconds]
    rest = view.total - view.done + view.strengths
    return sum(paces) / len(paces) * rest if paces and rest > 0 else None


class _Pace:
    """How fast a stage of a job goes."""

    def __init__(self) -> None:
        self._first: e.Preparing | None = None

    def at(self, event: e.Preparing) -> tuple[float, float | None]:
        """The share that is done, 0 to 1, and the seconds left; None while that is not known."""
        first = self._first = self._first or event
        share, gone = event.done / max(event.total, 1), event.done - first.done
        return share, (event.at - first.at) / gone * (event.total - event.done) if gone > 0 else None
