"""One run trains at a time: the others wait in the order in which they were started. Jobs of all kinds wait among them.

A run that waits is a file, its ticket. One process for all of them, ``keeper``, starts the first when nothing is at
work any more. A worker, the studio and every command that looks at the queue start the keeper if it is gone, so the
queue survives each of them, and includes runs that were started in a terminal. A job waits in its own process. The lock
on the device decides; the system releases it when its holder dies.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lora_studio import runs
from lora_studio.jobs import control, job, runner
from lora_studio.jobs.control import Request
from lora_studio.jobs.job import AtWork, Job
from lora_studio.language import ntr, tr
from lora_studio.locks import Lock
from lora_studio.runs import Run

POLL = 0.3
"""Seconds between two looks whether it is the run's turn."""


class QueueEntry(NamedTuple):
    """What is at work or waits: a run, or a job of another kind. ``title`` is what it is called in the middle of a
    sentence.
    """

    place: int
    title: str
    run: Run | None = None
    job: AtWork | None = None

    @property
    def one(self) -> Run | AtWork:
        """The run or the job."""
        found = self.run or self.job
        assert found
        return found

    @property
    def folder(self) -> Path:
        return self.one.folder

    @property
    def key(self) -> str:
        """What tells it from all others: its folder."""
        return self.folder.as_posix()


def line(outputs: Path) -> list[QueueEntry]:
    """Runs and jobs in the order of the queue, the one at work first."""
    found = [QueueEntry(runner.place(run) or 0, run.name, run=run) for run in runner.at_work(outputs)]
    found += [QueueEntry(one.place, one.title, job=one) for one in job.at_work(outputs)]
    return sorted(found, key=lambda entry: entry.place)


def ahead(run: Run) -> list[Run]:
    """The runs that ``run`` waits for, the one at work first; empty for one that is not in the queue."""
    line = runner.at_work(run.folder.parent)
    names = [other.name for other in line]
    return line[: names.index(run.name)] if run.name in names else []


def waits_for(run: Run) -> str:
    """What ``run`` waits for, in the middle of a sentence: ``ink to end, and 2 more runs before it``; empty if it is
    its turn.
    """
    waiting, others = ahead(run), _jobs_before(run)
    first = others[0] if others and not (waiting and (runner.place(waiting[0]) or 0) < others[0].place) else None
    if not waiting and not first:
        return ""
    name = first.title if first else waiting[0].name
    left = len(waiting) + len(others) - 1
    if not left:
        return tr("{name} to end", name=name)
    if others:
        return tr("{name} to end, and {count} more before it", name=name, count=left)
    return ntr(
        left,
        "{name} to end, and {count} more run before it",
        "{name} to end, and {count} more runs before it",
        name=name,
    )


def wait(run: Run) -> Lock | None:
    """Waits for the worker's turn: the lock on the device, to be held to the end, or None if the run was asked to stop
    before.
    """
    lock = Lock(runs.device_lock(run.folder.parent))
    while not control.asked(run, Request.STOP):
        line = runner.at_work(run.folder.parent)
        if line and line[0].name == run.name and not _jobs_before(run) and lock.acquire():
            return lock
        time.sleep(POLL)
    return None


def wait_for_job(waiting: Job, stopping: Callable[[], bool]) -> Lock | None:
    """Waits for a job's turn: the lock on the device, to be held to the end, or None if ``stopping`` said so before."""
    lock = Lock(runs.device_lock(waiting.outputs))
    while not stopping():
        if not job.waits_for(waiting) and lock.acquire():
            return lock
        time.sleep(POLL)
    return None


def _jobs_before(run: Run) -> list[AtWork]:
    number = runner.place(run)
    return [] if number is None else [one for one in job.at_work(run.folder.parent) if one.place < number]
