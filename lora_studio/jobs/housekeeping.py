"""Renaming and deleting runs, where nothing is at work in them."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager

from lora_studio import files, locks
from lora_studio.errors import RunError
from lora_studio.jobs import job, runner
from lora_studio.language import tr
from lora_studio.runs import Run, renaming, trash


def rename(run: Run, name: str) -> Run:
    """Gives the run another name, and returns it.

    Raises:
        RunError: something is at work in it or waits, or the name is taken.
        SettingsError: no name was typed, or the run's settings are damaged.
        MachineError: the disk refuses.
    """
    with _at_rest(run, "renamed"):
        return renaming.rename(run, name)


def delete(run: Run) -> None:
    """Moves the run's folder with all that is in it to the system's trash; ``trash.restore`` brings it back.

    Raises:
        RunError: something is at work in it or waits.
        MachineError: the system has no trash for this disk; everything is still there.
    """
    with _at_rest(run, "deleted"):
        trash.put(run.folder)


@contextmanager
def _at_rest(run: Run, done: str) -> Generator[None]:
    """Nothing is started in the run within it. On Windows a folder cannot move while a file in it is open; there the
    system refuses to move it where a worker has begun.
    """
    try:
        with locks.held(run.start_lock):
            require_rest(run, done)
            if os.name != "nt":
                yield
                return
    except OSError as error:
        raise files.refusal(error, tr("{name} cannot be {done}", name=run.name, done=done), run.folder) from error
    yield


def require_rest(run: Run, done: str) -> None:
    """Raises RunError where something is at work in the run or waits, so that it cannot be ``done``: "renamed"."""
    if runner.alive(run):
        what = f"{run.name} is at work or waits in the queue: it cannot be {done} now."
        raise RunError(what, where=run.folder, do=tr("Stop it, or take it out of the queue, first."))
    for other in job.at_work(run.folder.parent):
        if other.folder.is_relative_to(run.folder) or run.name in re.split(r"[ ,]+", other.title):
            what = f"{run.name} cannot be {done} now: {other.title} is at work or waits."
            raise RunError(what, where=run.folder, do=tr("Wait for its end, or stop it, first."))
