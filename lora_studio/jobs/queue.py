"""One run trains at a time: the others wait in the order in which they were started. Captioning jobs wait among them.

A run that waits is a file, its ticket. One process for all of them, ``keeper``, starts the first when nothing is at
work any more. A worker, the studio and every command that looks at the queue start the keeper if it is gone, so the
queue survives each of them, and includes runs that were started in a terminal. A captioning job waits in its own
process. The lock on the device decides; the system releases it when its holder dies.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lora_studio import runs
from lora_studio.jobs import captioning, control, runner
from lora_studio.jobs.captioning import CaptioningJob
from lora_studio.jobs.control import Request
from lora_studio.locks import Lock
from lora_studio.runs import Run

POLL = 0.3
"""Seconds between two looks whether it is the run's turn."""


def ahead(run: Run) -> list[Run]:
    """The runs that ``run`` waits for, the one at work first; empty for one that is not in the queue."""
    line = runner.at_work(run.folder.parent)
    names = [other.name for other in line]
    return line[: names.index(run.name)] if run.name in names else []


def waits_for(run: Run) -> str:
    """What ``run`` waits for, in the middle of a sentence: ``ink to end, and 2 more runs before it``; empty if it is
    its turn.
    """
    waiting = ahead(run)
    if not waiting:
        return next((f"the captioning of {job.name} to end" for job in _jobs_before(run)), "")
    others = len(waiting) - 1
    return f"{waiting[0].name} to end" + (
        f", and {others} more {'run' if others == 1 else 'runs'} before it" if others else ""
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


def wait_for_captioning(job: CaptioningJob, stopping: Callable[[], bool]) -> Lock | None:
    """Waits for a captioning job's turn: the lock on the device, to be held to the end, or None if ``stopping`` said so
    before.
    """
    lock = Lock(runs.device_lock(job.outputs))
    while not stopping():
        if not captioning.waits_for(job) and lock.acquire():
            return lock
        time.sleep(POLL)
    return None


def _jobs_before(run: Run) -> list[CaptioningJob]:
    number = runner.place(run)
    return [] if number is None else captioning.before(run.folder.parent, number)
