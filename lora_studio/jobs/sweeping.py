"""A study as a job: its trials are run one after the other, in turn with the runs. The parent's side: imports no torch
and no Optuna.

The job's folder is the study's (``sweeps.study``; ``job`` has the other files). A trial that has ended is not run
again, so a job that was stopped or killed continues with what is left. Between two trials runs that wait get the
machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from lora_studio import events as e
from lora_studio import files
from lora_studio.errors import RunError, SettingsError
from lora_studio.events import State
from lora_studio.jobs import view
from lora_studio.jobs.job import Job, read
from lora_studio.language import tr
from lora_studio.sweeps.outcome import Trial, TrialState
from lora_studio.sweeps.study import Study


class Device(NamedTuple):
    """Where trials are run: ``kind`` as the setting ``device``, and which of several GPUs."""

    kind: str = ""
    index: str = ""

    @classmethod
    def of(cls, text: str) -> Device:
        """Of ``cpu``, ``cuda`` or ``cuda:1``.

        Raises:
            SettingsError: it is none of these.
        """
        kind, _, index = text.strip().partition(":")
        if kind not in ("cpu", "cuda", "xpu", "mps") or (index and not index.isdecimal()):
            do = tr("Write for example: --devices cuda:0,cuda:1")
            raise SettingsError(tr("{text!r} is no device.", text=text), where="--devices", do=do)
        return cls(kind, index)

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that leave a process this GPU alone."""
        names = {"cuda": "CUDA_VISIBLE_DEVICES", "xpu": "ZE_AFFINITY_MASK"}
        return {names[self.kind]: self.index} if self.index and self.kind in names else {}


class SweepingOrder(BaseModel):
    """What a job is asked for. ``devices`` as in ``cuda:0``; none means the one of the study's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    devices: tuple[str, ...] = ()


@dataclass
class SweepingView:
    """All that is known of a job: ``done`` of ``total`` trials have ended."""

    state: State = State.QUEUED
    trials: list[Trial] = field(default_factory=list)
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    waits_for: str = ""
    stopping: bool = False
    """Whether it was asked to stop, and has not ended."""
    error: e.Failed | None = None

    @property
    def can_resume(self) -> bool:
        """Whether it ended before all trials had."""
        return self.state in (State.FAILED, State.INTERRUPTED) or (self.state.ended and self.done < self.total)


@dataclass(frozen=True)
class SweepingJob(Job):
    """The job that works through a study. Stopped, it ends the trial at work, which is continued later."""

    worker, noun = "lora_studio.jobs.sweeping_worker", tr("sweep")

    @cached_property
    def study(self) -> Study:
        return Study(self.folder)

    @property
    def outputs(self) -> Path:
        return self.study.outputs

    @property
    def title(self) -> str:
        return tr("the sweep {name}", name=self.name)

    @property
    def activity(self) -> str:
        return tr("settings are tried")

    def order(self) -> SweepingOrder:
        """What it was asked for; of a damaged file, nothing in particular."""
        try:
            return SweepingOrder.model_validate_json(self.order_file.read_bytes())
        except (OSError, ValidationError):
            return SweepingOrder()

    def view(self) -> SweepingView:
        alive = self.alive
        seen = fold(read(self))
        seen.trials, seen.total = self.study.noted(), self.study.sweep.total
        ended = [one for one in seen.trials if one.state not in (TrialState.WAITING, TrialState.RUNNING)]
        seen.done = len(ended)
        if not alive and seen.done >= seen.total and not seen.state.ended:
            seen.state = State.FINISHED  # it was killed after the last trial
        self.settle(seen, alive, tr("trials that have ended are not run again."))
        seen.stopping = not seen.state.ended and self.stop_file.exists()
        if not seen.state.ended:
            seen.seconds_left = self._left(seen, ended)
        return seen

    def stage(self) -> str:
        """What the trial at work does now, for people; empty where none is."""
        for trial in self.study.noted():
            if trial.state is TrialState.RUNNING:
                doing = _doing(self.study, trial)
                if not doing:
                    return tr("trial {number}", number=trial.number)
                return tr("trial {number}, {doing}", number=trial.number, doing=doing)
        return ""

    def _left(self, seen: SweepingView, ended: list[Trial]) -> float | None:
        """Seconds that the other trials take, at the pace of those that ended."""
        paces = [one.seconds for one in ended if one.state is TrialState.FINISHED and one.seconds]
        lanes = max(len(self.order().devices), 1)
        return sum(paces) / len(paces) * (seen.total - seen.done) / lanes if paces else None


def _doing(study: Study, trial: Trial) -> str:
    made = [run for seed in range(study.sweep.seeds) if (run := study.run(trial.number, seed)).events_file.is_file()]
    seen = view.fold(made[-1]) if made else view.RunView()
    if seen.last and seen.started and seen.last.step < seen.started.total_steps:
        return tr("step {step:,} of {total:,}", step=seen.last.step, total=seen.started.total_steps)
    return seen.preparing.stage if seen.preparing else ""


def start(study: Study, devices: tuple[str, ...] = ()) -> SweepingJob:
    """Works on the study, while others are at work when its turn comes. Does nothing while it is at work.

    Raises:
        MachineError: the disk refuses, or no process can be started.
    """
    job = SweepingJob(study.folder)
    if not job.alive:
        try:
            files.write(job.order_file, SweepingOrder(devices=devices).model_dump_json())
        except OSError as error:
            raise files.refusal(error, tr("The sweep cannot be started"), study.folder) from error
    job.resume()
    return job


def remove(study: Study) -> None:
    """Deletes the study with the runs of its trials; those that were kept stay.

    Raises:
        RunError: it is at work.
        MachineError: the disk refuses.
    """
    job = SweepingJob(study.folder)
    if job.alive:
        raise RunError(tr("The sweep {name} is at work.", name=study.name), where=study.folder, do=tr("Stop it first."))
    job.remove()


def fold(log: list[e.Event]) -> SweepingView:
    """The view after the events of a job's log."""
    view = SweepingView()
    for event in log:
        match event:
            case e.StateChanged():
                view.state = event.state
                if event.state is not State.FAILED:
                    view.error = None
            case e.Failed():
                view.state, view.error = State.FAILED, event
    return view
