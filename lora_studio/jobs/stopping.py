"""Ending what is at work or waits: a run or a job of another kind."""

from __future__ import annotations

from lora_studio import files
from lora_studio.jobs import control, keeper, runner
from lora_studio.jobs.control import Request
from lora_studio.jobs.queue import QueueEntry
from lora_studio.runs import Run


def stop_run(run: Run) -> bool:
    """Asks the run to stop; returns whether it left the queue by that, before its turn.

    Raises:
        MachineError: the disk refuses.
    """
    try:
        control.ask(run, Request.STOP)
        if waited := runner.waits(run):
            keeper.leave(run)
    except OSError as error:
        raise files.refusal(error, "The request cannot be left for the run", run.folder) from error
    return waited and not runner.alive(run)


def stop(entry: QueueEntry) -> bool:
    """Asks what stands in the queue to stop; returns whether it leaves the queue by that. Raises as ``stop_run``."""
    if entry.run:
        return stop_run(entry.run)
    assert entry.job
    waited = entry.job.waits
    entry.job.cancel()
    return waited
