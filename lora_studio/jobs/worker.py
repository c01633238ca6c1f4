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
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from lora_studio import files
from lora_studio.config.slices import MachineSettings
from lora_studio.errors import StudioError
from lora_studio.events import Event, Failed, State, StateChanged
from lora_studio.jobs import control, queue, ranks, runner
from lora_studio.jobs.control import Request
from lora_studio.jobs.eventlog import EventLog
from lora_studio.runs import Run

if TYPE_CHECKING:
    from lora_studio.training.distributed import World
    from lora_studio.training.requests import Requests


def main(folder: str) -> int:
    """Waits for the run's turn and trains it; returns the process's exit status, 0 where it ended with an adapter."""
    run = Run(Path(folder))
    log = EventLog(run.events_file)
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: _terminate(run, terminated))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        if not runner.claim(run):
            return 1
        _keep_queue(run)
        device = queue.wait(run)
        if device is None:
            log.append(StateChanged(state=State.INTERRUPTED))
            return 1
        files.sweep(run.folder, lives=lambda process: process != os.getpid() and psutil.pid_exists(process))
        for event in _events(run, terminated):
            log.append(event)
        return 0
    except Exception as error:  # the last place where a fault can still reach the user
        if not isinstance(error, StudioError):
            traceback.print_exc()
        log.append(Failed.of(error))
        return 1
    finally:
        with suppress(OSError):  # the next worker clears them too
            control.clear(run)
        _keep_queue(run)


def _keep_queue(run: Run) -> None:
    with suppress(OSError):  # whoever looks at the queue next tries it too
        runner.keep(run.folder.parent)


def _terminate(run: Run, terminated: threading.Event) -> None:
    """Stops the run as its user would, also where the disk does not take the request."""
    terminated.set()
    with suppress(OSError):
        control.ask(run, Request.STOP)


def _events(run: Run, terminated: threading.Event | None = None) -> Iterator[Event]:
    settings = run.settings().changed(gpus=ranks.launched()) if ranks.launched() else run.settings()
    with _world(run, settings.machine) as world:
        from lora_studio.training.loop import train

        yield from train(run, settings, _requests(run, terminated or threading.Event()), world)


def _requests(run: Run, terminated: threading.Event) -> Requests:
    from lora_studio.training.requests import Requests

    class ControlFiles(Requests):
        """The requests in the run's ``control/`` folder."""

        def stop(self) -> bool:
            return terminated.is_set() or control.asked(run, Request.STOP)

        def paused(self) -> bool:
            return control.asked(run, Request.PAUSE)

        def take_preview(self) -> bool:
            return control.take(run, Request.PREVIEW)

        def take_save(self) -> bool:
            return control.take(run, Request.SAVE)

        def pause(self) -> bool:
            try:
                control.ask(run, Request.PAUSE)
                return True
            except OSError:  # the disk may be too full for even that
                return False

        def end_pause(self) -> None:
            with suppress(OSError):  # the user ends it then
                control.withdraw(run, Request.PAUSE)

        def take_stop(self) -> bool:
            asked = terminated.is_set()
            terminated.clear()
            return control.take(run, Request.STOP) or asked

    return ControlFiles()


@contextmanager
def _world(run: Run, machine: MachineSettings) -> Generator[World]:
    """The processes that share the work, led by this one: those that a launcher started, those that are started here,
    or this one alone.
    """
    from lora_studio.training import distributed

    def import_early() -> None:  # takes seconds, in which the others do the same
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
