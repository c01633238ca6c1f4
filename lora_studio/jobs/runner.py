"""Starting workers and knowing whether they live. The parent's side: imports no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lora_studio import files, locks, runs
from lora_studio.errors import RunError
from lora_studio.events import Event, State, StateChanged
from lora_studio.jobs import control, environment, eventlog, identity, ranks, view, warm
from lora_studio.language import tr
from lora_studio.runs import Run, notes

_children: dict[int, subprocess.Popen] = {}
_keepers: dict[Path, subprocess.Popen] = {}
"""The latest keeper of each queue that this process started."""


def start(run: Run) -> None:
    """Starts the run's worker in a process of its own, which outlives this one; or, while others are at work, puts the
    run into the queue, from which the queue's keeper starts it. Starting twice starts once.

    Raises:
        MachineError: the run's folder cannot be written, or no process can be started.
        RunError: its event log cannot be written, so that nobody would know what it does.
    """
    outputs = run.folder.parent
    try:
        with locks.held(run.start_lock):
            if alive(run):
                return
            line = _line(outputs)
            _require_log(run)
            control.clear(run)
            files.unlink(run.worker_file)  # an earlier worker's, which would pass for a vanished one
            eventlog.EventLog(run.events_file).append(StateChanged(state=State.QUEUED))
            number = max([time.time_ns(), *(1 + ticket for ticket, _ in line)])  # the clock may have been set back
            if line and not ranks.launched():
                notes.write(run.ticket_file, {"queued": number, "variables": environment.own()})
            else:
                launch(run, number, {})
        keep(outputs)
    except OSError as error:
        raise files.refusal(error, tr("The run cannot be started"), run.folder) from error


def _require_log(run: Run) -> None:
    """Raises OSError, or RunError where the events would go nowhere, before anything is started."""
    if run.events_file.is_dir():
        what = tr("The run's {name} is a folder, so it could not report anything.", name=run.events_file.name)
        raise RunError(what, where=run.events_file, do=tr("Move that folder away, then start the run again."))
    with open(run.events_file, "ab"):
        pass


def launch(run: Run, number: int, variables: dict[str, str]) -> None:
    """Starts the run's worker now, in the process that is warm for it if there is one; the caller holds the run's
    ``start_lock``.

    Args:
        number: its place in the queue.
        variables: environment variables over those of this process.

    Raises:
        OSError: the run's folder cannot be written, or no process can be started.
    """
    process = None if variables else warm.hand_over(run)
    if process:
        _children[process.pid] = process
    else:
        with open(run.log_file, "ab") as log:
            process = detached(["lora_studio.jobs.worker", str(run.folder)], log, variables)
    register_worker(run, process.pid, number)


def keep(outputs: Path) -> None:
    """Starts the queue's keeper if runs wait and none lives. Whoever looks at the queue calls this, and so does a
    worker when it begins and ends, so that the queue survives the keeper and the studio.

    Raises:
        OSError: no process can be started.
    """
    begun = _keepers.get(outputs)
    if begun and begun.poll() is None:  # it may not have noted itself yet
        return
    if identity.read(runs.queue_lock(outputs)) is None and any(map(waits, runs.existing(outputs))):
        with open(runs.queue_log(outputs), "ab") as log:
            _keepers[outputs] = detached(["lora_studio.jobs.keeper", str(outputs)], log, {})


def detached(module: list[str], log: IO[bytes], variables: dict[str, str]) -> subprocess.Popen:
    """Starts ``python -m MODULE …`` so that it outlives this process. Raises OSError where that is refused."""
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment.environment(variables),
        **environment.DETACHED,
    )
    _children[process.pid] = process
    return process


def register_worker(run: Run, pid: int, number: int | None = None) -> None:
    """Notes that process ``pid`` is the run's worker, and its place in the queue, by default the last. A worker whose
    parent died before it did so registers itself.
    """
    queued = time.time_ns() if number is None else number
    notes.write(run.worker_file, {**identity.note(pid), "queued": queued})
    files.unlink(run.ticket_file)


def claim(run: Run) -> bool:
    """Registers this process as the run's worker, unless its parent has done so. False if the run has another worker
    that lives: the parent of this one was killed before it noted whom it had started.
    """
    with locks.held(run.start_lock):
        worker = identity.read(run.worker_file)
        if worker is None:
            register_worker(run, os.getpid(), place(run))
        return worker is None or worker["pid"] == os.getpid()


def alive(run: Run) -> bool:
    """Whether the run is at work or waits for its turn."""
    return place(run) is not None


def works(run: Run) -> bool:
    """Whether the run has a worker that lives."""
    return identity.read(run.worker_file) is not None


def waits(run: Run) -> bool:
    """Whether the run waits for the queue's keeper to start it."""
    return os.path.isfile(run.ticket_file)


def place(run: Run) -> int | None:
    """The run's place in the queue, a number that grows with every start; None if it is neither at work nor waiting."""
    try:
        if worker := identity.read(run.worker_file):
            return int(worker.get("queued", 1e9 * worker["started"]))
        return int(json.loads(files.patiently(run.ticket_file.read_text))["queued"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        return 0 if waits(run) else None  # a damaged ticket still waits, in front


def collect() -> None:
    """Lets the system forget the processes that this one started and that have ended."""
    for pid, process in list(_children.items()):
        if process.poll() is not None:
            del _children[pid]


def reap(run: Run) -> None:
    """Writes to the log of a run whose worker vanished that it was interrupted."""
    collect()
    if alive(run):
        return
    seen = view.fold(run)
    if not seen.state.ended and os.path.exists(run.worker_file):
        eventlog.EventLog(run.events_file).append(StateChanged(state=State.INTERRUPTED))


def _line(outputs: Path) -> list[tuple[int, Run]]:
    line = [(number, run) for run in runs.existing(outputs) if (number := place(run)) is not None]
    return sorted(line, key=lambda one: (one[0], one[1].name))


def at_work(outputs: Path = runs.OUTPUTS) -> list[Run]:
    """The runs that were started and have not ended, in the order of their start: the first is at work, the others wait
    for their turn.
    """
    return [run for _, run in _line(outputs)]


def active(outputs: Path = runs.OUTPUTS) -> Run | None:
    """The run at work, if any."""
    return next(iter(at_work(outputs)), None)


def follow(run: Run, poll: float = 0.2) -> Iterator[Event]:
    """Yields the run's events from the first, until the run has ended.

    Raises:
        RunError: its event log cannot be read.
    """
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
            if waits(run):
                keep(run.folder.parent)
            time.sleep(poll)
