"""The process that trains: ``python -m lora_studio.jobs.worker RUN_FOLDER``. It reports only through the run's event
log.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from lora_studio import files, libraries
from lora_studio.config.slices import MachineSettings
from lora_studio.errors import StudioError
from lora_studio.events import Event, Failed, State, StateChanged
from lora_studio.jobs import control, queue, ranks, runner
from lora_studio.jobs.control import Request
from lora_studio.jobs.control_files import ControlFiles
from lora_studio.jobs.eventlog import EventLog
from lora_studio.runs import Run

if TYPE_CHECKING:
    from lora_studio.training.distributed import World


def main(folder: str) -> int:
    """Waits for the run's turn and trains it; returns the process's exit status, 0 where it ended with an adapter."""
    run = Run(Path(folder))
    terminated = listen(lambda: control.ask(run, Request.STOP))
    try:
        return report(run, lambda log: _train_in_turn(run, log, terminated))
    finally:
        _keep_queue(run)


def listen(stop: Callable[[], None] = lambda: None) -> threading.Event:
    """From now on the system's request to end sets the event that is returned, and ends nothing else. Ctrl+C is for
    the command.

    Args:
        stop: done at that request as well; the disk may refuse it.
    """
    terminated = threading.Event()

    def terminate(*_: object) -> None:
        terminated.set()
        with suppress(OSError):
            stop()

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return terminated


def report(run: Run, work: Callable[[EventLog], bool]) -> int:
    """Does ``work`` as the run's worker; returns the process's exit status, 0 where it returned True. An error is the
    last event of the log. If the run has another worker that lives, nothing is done.
    """
    log = EventLog(run.events_file)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        return 0 if runner.claim(run) and work(log) else 1
    except Exception as error:  # the last place where a fault can still reach the user
        if not isinstance(error, StudioError):
            traceback.print_exc()
        log.append(Failed.of(error))
        return 1
    finally:
        with suppress(OSError):  # the next worker clears them too
            control.clear(run)


def record(run: Run, log: EventLog, happening: Iterator[Event]) -> None:
    """Writes what happens to the log, once what killed workers left half written is cleared away."""
    files.sweep(run.folder, lives=lambda process: process != os.getpid() and psutil.pid_exists(process))
    for event in happening:
        log.append(event)


def _train_in_turn(run: Run, log: EventLog, terminated: threading.Event) -> bool:
    """Returns False where the run was stopped before its turn."""
    _keep_queue(run)
    device = queue.wait(run)  # held until this process ends
    if device is None:
        log.append(StateChanged(state=State.INTERRUPTED))
        return False
    record(run, log, events(run, terminated))
    return True


def _keep_queue(run: Run) -> None:
    with suppress(OSError):  # whoever looks at the queue next tries it too
        runner.keep(run.folder.parent)


def events(run: Run, terminated: threading.Event | None = None) -> Iterator[Event]:
    """Trains the run in this process, and yields what happens. Raises as ``training.loop.train``."""
    settings = run.settings().changed(gpus=ranks.launched()) if ranks.launched() else run.settings()
    with _world(run, settings.machine) as world:
        with libraries.importing():
            from lora_studio.training.loop import train

        yield from train(run, settings, ControlFiles(run, terminated or threading.Event()), world)


@contextmanager
def _world(run: Run, machine: MachineSettings) -> Generator[World]:
    """The processes that share the work, led by this one: those that a launcher started, those that are started here,
    or this one alone.
    """
    with libraries.importing():
        from lora_studio.training import distributed

    def import_early() -> None:  # takes seconds, in which the others do the same
        with libraries.importing():
            importlib.import_module("lora_studio.training.loop")

    if ranks.launched():
        import_early()
        with distributed.joined() as world:
            yield world
    elif machine.gpus > 1:
        distributed.require(machine)
        meeting = distributed.host()
        workers = ranks.RankWorkers(run, machine.gpus, meeting.port)
        with workers, workers.explaining(distributed.PeerLost):
            import_early()
            with distributed.joined(meeting, machine.gpus) as world:
                yield world
    else:
        yield distributed.World()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
