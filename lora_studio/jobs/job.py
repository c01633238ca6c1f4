"""What all jobs share: work in a process of its own, in turn with the runs. The parent's side: imports no torch.

A job is a folder that ``runs.job_folders`` finds. Its event log is all that its process tells:

<job>/
├── order.json     what was asked for
├── events.jsonl   what happened, one event a line
├── worker.json    process id and start time of its worker, its place in the queue, and what others call it
├── worker.log     output of the worker's libraries
├── start.lock     held while a worker is started
└── stop           a request to stop, while there is one

A kind of job is a subclass of ``Job`` with an order and a view, a worker's module (``job_worker``), and a line in
``runs.job_folders``.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from lora_studio import events as e
from lora_studio import files, locks, runs
from lora_studio.errors import RunError
from lora_studio.events import State
from lora_studio.jobs import eventlog, identity, runner
from lora_studio.language import declared, english, tr
from lora_studio.language.message import from_data, to_data
from lora_studio.runs import notes
from lora_studio.runs.work_folder import WorkFolder

_LEAVING = 10.0
"""Seconds in which a worker that has ended its work leaves."""


class JobView(Protocol):
    """What is known of any job."""

    state: State
    seconds_left: float | None
    waits_for: str
    """What it waits for, in the middle of a sentence; empty if it does not wait."""
    error: e.Failed | None
    """Why it failed, or that its process vanished."""


@dataclass(frozen=True)
class Job(WorkFolder, ABC):
    """One job's folder."""

    worker: ClassVar[str]
    """The module of its process, which gets the folder."""
    noun: ClassVar[str]
    """What it does: "captioning"."""

    @property
    @abstractmethod
    def outputs(self) -> Path:
        """The folder of the queue that it waits in."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What others call it, in the middle of a sentence: "the captioning of ink"."""

    @property
    @abstractmethod
    def activity(self) -> str:
        """What happens while it works, as a clause: "pictures are captioned"."""

    @abstractmethod
    def view(self) -> JobView:
        """What is known of it now."""

    @property
    def stop_file(self) -> Path:
        return self.folder / "stop"

    @property
    def order_file(self) -> Path:
        return self.folder / "order.json"

    @property
    def alive(self) -> bool:
        """Whether it has a process that works or waits."""
        return identity.read(self.worker_file) is not None

    def cancel(self) -> None:
        """Asks it to stop; it keeps what it has done.

        Raises:
            MachineError: the disk refuses.
        """
        _cancel(self.folder, self.noun)

    def resume(self) -> None:
        """Starts it, or continues with what is left. Does nothing while it is at work.

        Raises:
            MachineError: its folder cannot be written, or no process can be started.
        """
        self._start(lambda: None)

    def remove(self) -> None:
        """Removes its folder. Does nothing while it is at work.

        Raises:
            MachineError: the disk refuses.
        """
        try:
            if not self.alive:
                files.remove(self.folder)
        except OSError as error:
            raise files.refusal(error, tr("The {noun} job cannot be removed", noun=self.noun), self.folder) from error

    def register(self, pid: int) -> None:
        """Notes process ``pid`` as its worker, at the end of the queue. Raises OSError where the disk refuses."""
        known = {"queued": time.time_ns(), "name": self.name, "noun": english(self.noun), "title": to_data(self.title)}
        known |= {"activity": to_data(self.activity)}
        notes.write(self.worker_file, {**identity.note(pid), **known})

    def claim(self) -> bool:
        """Registers this process as the job's worker; False if it has another one that lives."""
        with locks.held(self.start_lock):
            worker = identity.read(self.worker_file)
            if worker is None:
                self.register(os.getpid())
            return worker is None or worker["pid"] == os.getpid()

    def settle(self, view: JobView, alive: bool, kept: str) -> None:
        """Completes the ``view`` of its events: whether its process vanished, and what it waits for.

        Args:
            alive: whether it was before the log was read: a worker writes its last event before it ends.
            kept: what need not be done again, as a sentence.
        """
        if not view.state.ended and not alive:
            view.state, view.seconds_left = State.INTERRUPTED, None
            view.error = e.Failed(
                what=tr(
                    "The {noun}'s process ended unexpectedly: it was killed, or the computer lost power or memory.",
                    noun=self.noun,
                ),
                where=str(self.log_file),
                do=tr("Resume it: {kept}", kept=kept),
            )
        if view.state is State.QUEUED:
            view.waits_for = waits_for(self)

    def _start(self, before: Callable[[], None]) -> None:
        """``resume``; does ``before`` first, unless it is at work."""
        try:
            with locks.held(self.start_lock):
                if self._at_work():
                    return
                before()
                files.unlink(self.stop_file)
                files.unlink(self.worker_file)
                eventlog.EventLog(self.events_file).append(e.StateChanged(state=State.QUEUED))
                with open(self.log_file, "ab") as log:
                    process = runner.detached([self.worker, str(self.folder)], log, {})
                self.register(process.pid)
        except OSError as error:
            raise files.refusal(error, tr("The {noun} cannot be started", noun=self.noun), self.folder) from error

    def _at_work(self) -> bool:
        """Whether it has a worker. One that has written its last event needs a moment to end, which is waited for."""
        patience = time.monotonic() + _LEAVING
        while self.alive:
            if not self.view().state.ended or time.monotonic() > patience:
                return True
            time.sleep(0.05)
        return False


class AtWork(NamedTuple):
    """A job of any kind that works or waits, as its worker is noted: the names are those of ``Job``."""

    place: int
    """In the queue, which jobs share with the runs: a number that grows with every start."""
    folder: Path
    name: str
    noun: str
    title: str
    activity: str

    @property
    def events_file(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def waits(self) -> bool:
        """Whether it waits for its turn."""
        told = read(self)
        return bool(told) and isinstance(last := told[-1], e.StateChanged) and last.state is State.QUEUED

    def cancel(self) -> None:
        """As ``Job.cancel``."""
        _cancel(self.folder, self.noun)


def at_work(outputs: Path = runs.OUTPUTS) -> list[AtWork]:
    """The jobs of all kinds that work or wait, in the order of their start."""
    return sorted(found for folder in runs.job_folders(outputs) if (found := _noted(folder)))


def place(job: Job) -> int | None:
    """The job's place in the queue; None if it neither works nor waits."""
    noted = _noted(job.folder)
    return noted.place if noted else None


def read(job: Job | AtWork) -> list[e.Event]:
    """The events of the job's log; where it cannot be read, the last one says why."""
    found: list[e.Event] = []
    offset = -1
    following = 0
    while following != offset:
        offset = following
        try:
            more, following = eventlog.read(job.events_file, offset)
        except RunError as error:
            return [*found, e.Failed.of(error)]
        found += more
    return found


def waits_for(job: Job) -> str:
    """What ``job`` waits for, in the middle of a sentence; empty if it is its turn."""
    number = place(job)
    if number is None:
        return ""
    before = [(other.place, other.title) for other in at_work(job.outputs) if other.place < number]
    for run in runner.at_work(job.outputs):
        theirs = runner.place(run)
        if theirs is not None and theirs < number:
            before.append((theirs, tr("the run {name}", name=run.name)))
    if not before:
        return ""
    name, left = min(before)[1], len(before) - 1
    if not left:
        return tr("{name} to end", name=name)
    return tr("{name} to end, and {count} more before it", name=name, count=left)


def _noted(folder: Path) -> AtWork | None:
    """Notes of earlier versions, which had captioning jobs alone, say less."""
    worker = identity.read(folder / "worker.json")
    if worker is None:
        return None
    number = int(worker.get("queued", 1e9 * worker["started"]))
    name, noun = str(worker.get("name", folder.name)), declared(str(worker.get("noun", "captioning")))
    title = worker.get("title") or tr("the {noun} of {name}", noun=noun, name=name)
    activity = worker.get("activity") or tr("pictures are captioned")
    return AtWork(number, folder, name, noun, _message(title), _message(activity))


def _message(data: Any) -> str:
    """The text that a note holds; earlier versions noted it without its parts."""
    try:
        text = from_data(data)
    except ValueError:
        text = data
    return text if isinstance(text, str) else str(text)


def _cancel(folder: Path, noun: str) -> None:
    try:
        files.patiently((folder / "stop").touch)
    except OSError as error:
        raise files.refusal(error, tr("The {noun} cannot be stopped", noun=noun), folder) from error
