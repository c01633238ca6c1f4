"""Starting workers and knowing whether they live. The parent's side: imports no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from lora_studio import files, locks, runs
from lora_studio.events import Event, State, StateChanged
from lora_studio.jobs import control, environment, eventlog, view
from lora_studio.runs import Run

_children: dict[int, subprocess.Popen] = {}


def start(run: Run) -> None:
    """Starts the run's worker in a process of its own, which outlives this one and waits for its turn. Starting twice
    starts once.

    Raises:
        MachineError: the run's folder cannot be written, or no process can be started.
    """
    try:
        with locks.held(run.start_lock):
            if not alive(run):
                _start(run)
    except OSError as error:
        raise files.refusal(error, "The run cannot be started", run.folder) from error


def _start(run: Run) -> None:
    control.clear(run)
    files.unlink(run.worker_file)  # an earlier worker's, which would pass for a vanished one until the new one is noted
    eventlog.EventLog(run.events_file).append(StateChanged(state=State.QUEUED))
    detached: dict[str, Any] = (
        {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
        if os.name == "nt"
        else {"start_new_session": True}
    )
    with open(run.log_file, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lora_studio.jobs.worker", str(run.folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment.environment(),
            **detached,
        )
    _children[process.pid] = process
    register_worker(run, process.pid)


def register_worker(run: Run, pid: int) -> None:
    """Notes that process ``pid`` is the run's worker, and since when. A worker whose parent died before it did so
    registers itself.
    """
    files.write(
        run.worker_file,
        json.dumps({"pid": pid, "started": psutil.Process(pid).create_time(), "queued": time.time_ns()}),
    )


def alive(run: Run) -> bool:
    """Whether the run's worker is at work or waits for its turn: its process exists and started when the worker did,
    since the system gives process ids out again.
    """
    return _ticket(run) is not None


def _ticket(run: Run) -> int | None:
    """When the run's living worker was started, in nanoseconds since the epoch; the system's own start times are too
    coarse to order two.
    """
    try:
        worker = json.loads(files.patiently(run.worker_file.read_text))
        process = psutil.Process(worker["pid"])
        same = abs(process.create_time() - worker["started"]) < 1.0
        return (
            int(worker.get("queued", 1e9 * worker["started"]))
            if same and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
            else None
        )
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError, psutil.Error):
        return None


def reap(run: Run) -> None:
    """Writes to the log of a run whose worker vanished that it was interrupted."""
    for pid, process in list(_children.items()):
        if process.poll() is not None:
            del _children[pid]
    if alive(run):
        return
    seen = view.fold(run)
    if not seen.state.ended and os.path.exists(run.worker_file):
        eventlog.EventLog(run.events_file).append(StateChanged(state=State.INTERRUPTED))


def at_work(outputs: Path = runs.OUTPUTS) -> list[Run]:
    """The runs whose worker lives, in the order in which they were started: the first is at work, the others wait for
    their turn.
    """
    line = [(ticket, run.name, run) for run in runs.existing(outputs) if (ticket := _ticket(run)) is not None]
    return [run for *_, run in sorted(line, key=lambda one: one[:2])]


def active(outputs: Path = runs.OUTPUTS) -> Run | None:
    """The run at work, if any."""
    return next(iter(at_work(outputs)), None)


def follow(run: Run, poll: float = 0.2) -> Iterator[Event]:
    """Yields the run's events from the first, until the run has ended."""
    offset = 0
    while True:
        running = alive(run)
        before = offset
        found, offset = eventlog.read(run.events_file, before)
        yield from found
        if not running and offset == before:
            reap(run)
            yield from eventlog.read(run.events_file, offset)[0]
            return
        if offset == before:
            time.sleep(poll)
