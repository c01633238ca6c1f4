"""The process that trains: ``python -m lora_studio.jobs.worker RUN_FOLDER``. Its only voice is the run's event log."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from lora_studio import files
from lora_studio.config.settings import Settings
from lora_studio.errors import StudioError
from lora_studio.events import Failed, State, StateChanged
from lora_studio.jobs import control, queue, ranks, runner
from lora_studio.jobs.control import Request
from lora_studio.jobs.eventlog import EventLog
from lora_studio.runs import Run


def main(folder: str) -> int:
    """Waits for the run's turn and trains it; returns the process's exit status, 0 where it ended with an adapter."""
    run = Run(Path(folder))
    log = EventLog(run.events_file)
    signal.signal(signal.SIGTERM, lambda *_: control.ask(run, Request.STOP))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        if not runner.alive(run):
            runner.register_worker(run, os.getpid())
        device = queue.wait(run)
        if device is None:
            log.append(StateChanged(state=State.INTERRUPTED))
            return 1
        files.sweep(run.folder, lives=lambda process: process != os.getpid() and psutil.pid_exists(process))
        for event in _events(run):
            log.append(event)
        return 0
    except Exception as error:  # the last place where a fault can still reach the user
        if not isinstance(error, StudioError):
            traceback.print_exc()
        log.append(Failed.of(error))
        return 1
    finally:
        control.clear(run)


def _events(run: Run):
    from lora_studio.training.requests import Requests

    class Asked(Requests):
        """The requests that lie in the run's folder."""

        def stop(self) -> bool:
            return control.asked(run, Request.STOP)

        def paused(self) -> bool:
            return control.asked(run, Request.PAUSE)

        def take_preview(self) -> bool:
            return control.take(run, Request.PREVIEW)

        def take_save(self) -> bool:
            return control.take(run, Request.SAVE)

        def pause(self) -> None:
            with suppress(OSError):  # the disk may be too full for even that
                control.ask(run, Request.PAUSE)

        def go_on(self) -> None:
            control.withdraw(run, Request.PAUSE)

        def take_stop(self) -> bool:
            return control.take(run, Request.STOP)

    settings = run.settings().changed(gpus=ranks.launched()) if ranks.launched() else run.settings()
    with _ranks(run, settings) as processes:
        from lora_studio.training.loop import train

        yield from train(run, settings, Asked(), processes)


@contextmanager
def _ranks(run: Run, settings: Settings) -> Iterator:
    """The processes that share the work, led by this one: those that a launcher started, those that are started here,
    or this one alone.
    """
    from lora_studio.training import distributed

    def get_ready() -> None:  # seconds, in which the others do the same
        importlib.import_module("lora_studio.training.loop")

    if ranks.launched():
        get_ready()
        with distributed.joined() as own:
            yield own
    elif settings.machine.gpus > 1:
        distributed.require(settings)
        meeting = distributed.host()
        with (
            ranks.RankWorkers(run, settings.machine.gpus, meeting.port) as others,
            others.explaining(distributed.PeerLost),
        ):
            get_ready()
            with distributed.joined(meeting, settings.machine.gpus) as own:
                yield own
    else:
        yield distributed.World()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
