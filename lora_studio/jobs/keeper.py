"""The process that starts the runs that wait: ``python -m lora_studio.jobs.keeper OUTPUTS``. There is one while the
queue holds a run, whatever its length.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from lora_studio import files, locks, runs
from lora_studio.errors import StudioError
from lora_studio.events import Failed, State, StateChanged
from lora_studio.jobs import control, identity, runner
from lora_studio.jobs.control import Request
from lora_studio.jobs.eventlog import EventLog
from lora_studio.language import tr
from lora_studio.locks import Lock
from lora_studio.runs import Run, notes

POLL = 1.0
"""Seconds between two looks at the queue."""


def main(outputs: Path) -> None:
    """Starts one run after the other until none waits. Returns at once if another keeper lives."""
    lock = Lock(runs.queue_lock(outputs))
    while any(map(runner.waits, runs.existing(outputs))):  # also one that came while the lock was being released
        if not lock.acquire():
            return
        lock.note(json.dumps(identity.note(os.getpid())))
        while look(outputs):
            time.sleep(POLL)
        lock.release()


def look(outputs: Path) -> bool:
    """Lets those leave the queue that were asked to stop, and starts the first if it is its turn. Returns whether runs
    still wait.
    """
    line = runner.at_work(outputs)
    waiting = [run for run in line if runner.waits(run)]
    for run in waiting:
        if control.asked(run, Request.STOP):
            leave(run)
    if line and line[0] in waiting and not control.asked(line[0], Request.STOP):
        _start(line[0])
    runner.collect()
    return any(map(runner.waits, waiting))


def leave(run: Run) -> None:
    """Takes the run out of the queue, once, whoever asks for it."""
    with locks.held(run.start_lock):
        if runner.waits(run) and not runner.works(run):
            EventLog(run.events_file).append(StateChanged(state=State.INTERRUPTED))
            with suppress(OSError):  # the next worker clears them too
                control.clear(run)
        files.unlink(run.ticket_file)


def _start(run: Run) -> None:
    """Starts the run's worker. Where that fails the run has failed, so that it does not stop the queue."""
    with locks.held(run.start_lock):
        if not runner.works(run):
            try:
                runner.launch(run, *_ticket(run))
            except OSError as error:
                refused: StudioError = files.refusal(error, tr("The run cannot be started"), run.folder)
                EventLog(run.events_file).append(Failed.of(refused))
        files.unlink(run.ticket_file)


def _ticket(run: Run) -> tuple[int, dict[str, str]]:
    """The run's place in the queue, and the environment variables that it was started with. Of a damaged ticket as far
    as it can be read.
    """
    ticket = notes.read(run.ticket_file)
    try:
        variables = {str(name): str(value) for name, value in ticket["variables"].items()}
        return int(ticket["queued"]), variables
    except (ValueError, KeyError, TypeError, AttributeError):
        return time.time_ns(), {}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
