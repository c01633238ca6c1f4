"""The process that trains: ``python -m lora_studio.jobs.worker RUN_FOLDER``. Its only voice is the run's event log."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path

from lora_studio.errors import StudioError
from lora_studio.events import Failed
from lora_studio.jobs import control
from lora_studio.jobs.control import Request
from lora_studio.jobs.eventlog import EventLog
from lora_studio.runs import Run


def main(folder: str) -> int:
    """Trains the run in ``folder``; returns the process's exit status, 0 where it ended with an adapter."""
    run = Run(Path(folder))
    log = EventLog(run.events_file)
    signal.signal(signal.SIGTERM, lambda *_: control.ask(run, Request.STOP))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
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
    from lora_studio.training.loop import train
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

    return train(run, run.settings(), Asked())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
