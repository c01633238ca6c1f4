"""Works through a study: one trial after the other, each in a process of its own; with several devices one on each.

The device of the outputs is held while trials are at work, and given back between them if runs wait for it.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from lora_studio import files, locks, runs
from lora_studio.config.settings import Settings
from lora_studio.errors import RunError, StudioError
from lora_studio.evaluation import judgements
from lora_studio.jobs import control, runner, trial_worker, view
from lora_studio.jobs.control import Request
from lora_studio.jobs.sweeping import Device
from lora_studio.language import tr
from lora_studio.locks import Lock
from lora_studio.runs import Run, branching, checkpoints
from lora_studio.sweeps.outcome import TrialOutcome
from lora_studio.sweeps.store import Attempt, Interrupted, Pruned, TrialStore
from lora_studio.sweeps.study import Study

POLL = 0.3
"""Seconds between two looks at a run, and at whose turn it is."""


class SharedDevice:
    """The outputs' device, for several trials at once. Others that wait get it between two trials.

    Args:
        others: whether someone else is to come first.
        taken, given_back: called when a trial has got the device, and when it needs it no more.
    """

    def __init__(
        self,
        outputs: Path,
        others: Callable[[], bool],
        taken: Callable[[], None],
        given_back: Callable[[], None],
    ):
        self._lock, self._others = Lock(runs.device_lock(outputs)), others
        self._taken, self._given_back = taken, given_back
        self._mutex, self._users = threading.Lock(), 0

    @contextmanager
    def held(self, stopping: Callable[[], bool]) -> Generator[bool]:
        """Waits for its turn and holds the device within the ``with``; yields whether it does, or was to stop."""
        while not (held := self._take()) and not stopping():
            time.sleep(POLL)
        try:
            yield held
        finally:
            if held:
                self._give()

    def _take(self) -> bool:
        with self._mutex:
            if self._others() or not (self._users or self._lock.acquire()):
                return False
            self._users += 1
            self._taken()
            return True

    def _give(self) -> None:
        with self._mutex:
            self._users -= 1
            if not self._users:
                self._lock.release()
            self._given_back()


def work(study: Study, devices: list[Device], stopping: Callable[[], bool], shared: SharedDevice) -> bool:
    """Runs trials until none is left that nobody has begun, or ``stopping`` says so; returns whether none is.

    Raises:
        StudioError: the study or its storage cannot be used.
    """
    ended = threading.Event()

    def lane(number: int) -> bool:
        try:
            return _Lane(study, number, devices[number], lambda: stopping() or ended.is_set(), shared).work()
        except BaseException:
            ended.set()  # what ends one ends all
            raise

    with ThreadPoolExecutor(len(devices)) as pool:
        ended_well = list(pool.map(lane, range(len(devices))))
    return all(ended_well)


class _Lane:
    """One device's part of a study."""

    def __init__(self, study: Study, number: int, device: Device, stopping: Callable[[], bool], shared: SharedDevice):
        self.study, self.number, self.device = study, number, device
        self.stopping, self.shared = stopping, shared

    def work(self) -> bool:
        """Runs trials as long as there are any; returns whether none is left."""
        with TrialStore(self.study, self.number) as store:
            store.repair()
            self.study.note(store.trials())
            while not self.stopping() and store.left() > 0:
                with self.shared.held(self.stopping) as held:
                    if held:
                        store.run_next(self.perform)
                self.study.note(store.trials())
            return store.left() == 0

    def perform(self, attempt: Attempt) -> TrialOutcome:
        """Trains and judges the runs of a trial. Raises as ``TrialStore.run_next`` takes it."""
        found: list[TrialOutcome] = []
        for seed in range(self.study.sweep.seeds):
            settings = self.study.sweep.run_settings(self._settings(), attempt.params, seed, self._settled)
            run = _prepared(self.study, self.study.run(attempt.number, seed), settings)
            found.append(self._outcome(run, None if seed else attempt))
        return TrialOutcome.mean(found)

    def _settled(self, settings: Settings) -> Settings:
        return branching.with_steps(settings, self.study.folder)

    def _settings(self) -> Settings:
        settings = self.study.settings()
        return settings.changed(device=self.device.kind) if self.device.kind else settings

    def _outcome(self, run: Run, attempt: Attempt | None) -> TrialOutcome:
        """Starts the run, unless it is at work or has come to its end, and follows it to that."""
        if not _judged_to_the_end(run):
            _launch(run, self.device)
        behind = self._follow(run, attempt)
        seen, judged = view.fold(run), judgements.judged(run)
        if behind:
            raise Pruned(TrialOutcome.of(judged) if judged else None)
        if _judged_to_the_end(run):
            _tidy(run)
            started = seen.started.parameters if seen.started else 0
            return TrialOutcome.of(judged).model_copy(
                update={"parameters": started, "size": run.adapter_file.stat().st_size}
            )
        if seen.failed and not self.stopping():
            raise RunError(seen.failed.what, where=seen.failed.where or run.folder, do=seen.failed.do)
        raise Interrupted(self.stopping())

    def _follow(self, run: Run, attempt: Attempt | None) -> bool:
        """Waits for the run's end; returns whether it fell behind and was stopped for that."""
        behind, asked, known = False, False, set[int]()
        while runner.works(run):
            for one in judgements.judged(run):
                if attempt and one.step not in known and one.step < run.settings().run.steps:
                    known.add(one.step)
                    behind = behind or attempt.falls_behind(one.step, one.style.value)
            if (behind or self.stopping()) and not asked:
                control.ask(run, Request.STOP)
                asked = True
            time.sleep(POLL)
        runner.collect()
        return behind


def _judged_to_the_end(run: Run) -> bool:
    return trial_worker.trained(run) and trial_worker.judged(run)


def _prepared(study: Study, run: Run, settings: Settings) -> Run:
    """The run's folder, new or as it was left, with the base model's pictures that another trial has drawn."""
    if not run.settings_file.is_file():
        shutil.rmtree(run.folder, ignore_errors=True)  # its creation was interrupted
        made = branching.create(settings.changed(name=run.name), study.folder)
        assert made == run, f"{made.folder} is not {run.folder}"
    elif run.settings().machine.device != settings.machine.device:
        branching.with_changes(run, {"device": settings.machine.device})
    base = judgements.folder(run) / "base"
    drawn = next(study.folder.glob("*/evaluation/base/features.safetensors"), None)
    if drawn and not base.exists():
        partial = files.partial(base)
        with suppress(OSError):  # they are drawn anew then
            shutil.copytree(drawn.parent, partial)
            os.replace(partial, base)
    return run


def _launch(run: Run, device: Device) -> None:
    """Starts the run's process, unless it has one.

    Raises:
        MachineError: the disk refuses, or no process can be started.
    """
    try:
        with locks.held(run.start_lock):
            if runner.works(run):
                return
            control.clear(run)
            files.unlink(run.worker_file)
            arguments = ["lora_studio.jobs.trial_worker", str(run.folder), str(os.getpid())]
            with open(run.log_file, "ab") as log:
                process = runner.detached(arguments, log, device.variables)
            runner.register_worker(run, process.pid)
    except OSError as error:
        raise files.refusal(error, tr("The trial cannot be started"), run.folder) from error


def _tidy(run: Run) -> None:
    """Deletes the states that only resuming needs: a study would fill the disk."""
    with suppress(OSError, StudioError):
        for saved in checkpoints.listed(run):
            files.remove(saved.folder)
