"""The process that works through a study: ``python -m lora_studio.jobs.sweeping_worker STUDY_FOLDER``. It reports
through the job's event log and the study's table of trials; see ``sweeping``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lora_studio import events as e
from lora_studio.errors import MachineError
from lora_studio.events import State, StateChanged
from lora_studio.jobs import job, job_worker, sweeper
from lora_studio.jobs.eventlog import EventLog
from lora_studio.jobs.sweeper import SharedDevice
from lora_studio.jobs.sweeping import Device, SweepingJob
from lora_studio.language import tr


def main(folder: str) -> int:
    """Works through the study whenever it is its turn; returns the process's exit status."""
    sweeping = SweepingJob(Path(folder))
    log, stopping = EventLog(sweeping.events_file), job_worker.Stopping(sweeping)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        if not sweeping.claim():
            return 1
    except OSError as error:
        log.append(e.Failed.of(error))
        return 1
    no_room = MachineError(tr("There is not enough memory for the sweep."), do=tr("Close other programs."))
    return job_worker.reported(
        sweeping, log, lambda: work(sweeping, log, stopping), no_room, tr("the result of every trial")
    )


def work(sweeping: SweepingJob, log: EventLog, stopping: Callable[[], bool]) -> bool:
    """Runs the trials that are left; returns whether none is. Raises as ``sweeper.work``."""
    log.append(StateChanged(state=State.QUEUED))

    def given_back() -> None:
        with suppress(OSError):  # it keeps its place in the queue then
            sweeping.register(os.getpid())
        if job.waits_for(sweeping):
            log.append(StateChanged(state=State.QUEUED))

    shared = SharedDevice(
        sweeping.outputs,
        others=lambda: bool(job.waits_for(sweeping)),
        taken=lambda: log.append(StateChanged(state=State.RUNNING)),
        given_back=given_back,
    )
    devices = [Device.of(one) for one in sweeping.order().devices] or [Device()]
    return sweeper.work(sweeping.study, devices, stopping, shared)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
