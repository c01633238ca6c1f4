"""The process of a trial's run: ``python -m lora_studio.jobs.trial_worker RUN_FOLDER PARENT``. It trains as any worker
does and judges the last state. Its parent holds the device; it ends with that.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lora_studio import libraries
from lora_studio.evaluation import judgements
from lora_studio.events import Event
from lora_studio.jobs import control, identity, view, worker
from lora_studio.jobs.control import Request
from lora_studio.jobs.eventlog import EventLog
from lora_studio.runs import Run


def main(folder: str, parent: int) -> int:
    """Trains and judges the run; returns the process's exit status, 0 where that came to its end."""
    run = Run(Path(folder))
    identity.end_with(parent, 1)
    terminated = worker.listen()

    def work(log: EventLog) -> bool:
        worker.record(run, log, events(run, terminated))
        return True

    return worker.report(run, work)


def events(run: Run, terminated: threading.Event) -> Iterator[Event]:
    """What happens while the run trains, if it has not done so, and is judged, if it came to its last step.

    Raises:
        StudioError: as ``training.loop.train`` and ``evaluation.judging.judge``.
    """
    if not trained(run):
        yield from worker.events(run, terminated)
    if trained(run) and not judged(run):
        yield from _judging(run, terminated)


def _judging(run: Run, terminated: threading.Event) -> Iterator[Event]:
    with libraries.importing():
        from lora_studio.evaluation import judging

    def cancelled() -> bool:
        return terminated.is_set() or control.asked(run, Request.STOP)

    with suppress(judging.Cancelled):
        for event in judging.judge(run, steps=[run.settings().run.steps], cancelled=cancelled):
            if isinstance(event, Event):
                yield event


def trained(run: Run) -> bool:
    """Whether the run has come to its last step."""
    end = view.fold(run).finished
    return end is not None and not end.stopped and run.adapter_file.is_file()


def judged(run: Run) -> bool:
    """Whether the run's last state was judged."""
    return any(one.step == run.settings().run.steps for one in judgements.judged(run))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
