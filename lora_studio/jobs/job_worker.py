"""What the processes of all jobs share: waiting for the turn, and telling how the work ended. They report only through
the job's event log.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable

from lora_studio import events as e
from lora_studio import files
from lora_studio.errors import MachineError
from lora_studio.events import State, StateChanged
from lora_studio.jobs import queue
from lora_studio.jobs.eventlog import EventLog
from lora_studio.jobs.job import Job
from lora_studio.language import tr


class Stopping:
    """Whether the job was asked to stop: by a file, or by the system. Ctrl+C is for the command."""

    def __init__(self, job: Job):
        self._file, self._terminated = job.stop_file, threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: self._terminated.set())
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __call__(self) -> bool:
        return self._terminated.is_set() or os.path.exists(self._file)


def in_turn(job: Job, work: Callable[[EventLog, Callable[[], bool]], int]) -> int:
    """Waits for the job's turn and does it; returns the process's exit status, 0 where it ended as it should.

    Args:
        work: is given the job's log and ``Stopping``; usually ``reported``.
    """
    log, stopping = EventLog(job.events_file), Stopping(job)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        if not job.claim():
            return 1
        device = queue.wait_for_job(job, stopping)  # held until this process ends
    except OSError as error:
        log.append(e.Failed.of(files.refusal(error, tr("The {noun} cannot begin", noun=job.noun), job.folder)))
        return 1
    if device is None:
        log.append(StateChanged(state=State.INTERRUPTED))
        return 0
    return work(log, stopping)


def reported(job: Job, log: EventLog, work: Callable[[], bool], no_room: MachineError, kept: str) -> int:
    """Does the work, now; returns the process's exit status. Whatever happens is in the log.

    Args:
        work: returns whether nothing is left to do.
        no_room: what to tell where memory runs out.
        kept: what was done before a fault of the studio's, as "what was captioned".
    """
    try:
        log.append(StateChanged(state=State.PREPARING))
        log.append(StateChanged(state=State.FINISHED if work() else State.INTERRUPTED))
        return 0
    except Exception as error:  # the last place where a fault can still reach the user
        log.append(_failed(error, job, no_room, kept))
        return 1


def _failed(error: Exception, job: Job, no_room: MachineError, kept: str) -> e.Failed:
    """The event that tells of ``error``; a fault of the studio's goes to the job's log with its traceback."""
    from lora_studio.training import devices, exceptions

    rules: list[exceptions.Rule] = [
        (devices.memory_full, lambda _: no_room),
        (devices.lost, devices.device_lost),
        (
            lambda one: isinstance(one, OSError),
            lambda one: files.refusal(one, tr("The {noun} stopped", noun=job.noun), job.folder),
        ),
    ]
    if told := exceptions.translated(error, rules):
        return e.Failed.of(told)
    traceback.print_exc()
    do = tr("This is a bug in the studio. The job's worker.log has the details; {kept} is kept.", kept=kept)
    return e.Failed.of(error).model_copy(update={"where": str(job.log_file), "do": do})
