"""Renaming, deleting and restoring runs, where nothing is at work in them."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from lora_studio import files, locks
from lora_studio.errors import MachineError, RunError
from lora_studio.jobs import job, runner
from lora_studio.language import declared, english, tr
from lora_studio.runs import Run, renaming, undo


def rename(run: Run, name: str) -> Run:
    """Gives the run another name, and returns it.

    Raises:
        RunError: something is at work in it or waits, or the name is taken.
        SettingsError: no name was typed, or the run's settings are damaged.
        MachineError: the disk refuses.
    """
    with _at_rest(run, tr("renamed")):
        return renaming.rename(run, name)


def delete(run: Run) -> None:
    """Moves the run's folder with all that is in it to the system's trash; ``restore`` brings the last one back, unless
    the disk has no hard links.

    Raises:
        RunError: something is at work in it or waits.
        MachineError: the system has no trash for this disk; everything is still there.
    """
    with _at_rest(run, tr("deleted")):
        undo.delete([run.folder], run.folder.parent, undo.RUNS)


def restore(name: str, outputs: Path) -> None:
    """Brings the run that was deleted last back.

    Raises:
        MachineError: it is not kept any more, something else has its name now, or the disk refuses.
    """
    if not restorable(name, outputs):
        what = tr("{name} is not kept for undo any more.", name=name)
        raise MachineError(what, where=outputs / name, do=tr("Look for it in your system's trash."))
    undo.restore(outputs, undo.RUNS)


def restorable(name: str, outputs: Path) -> bool:
    """Whether ``restore`` can bring the run back."""
    return undo.kept(outputs, undo.RUNS) == [outputs / name]


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
    done = declared(english(done))
    if runner.alive(run):
        what = tr("{name} is at work or waits in the queue: it cannot be {done} now.", name=run.name, done=done)
        raise RunError(what, where=run.folder, do=tr("Stop it, or take it out of the queue, first."))
    for other in job.at_work(run.folder.parent):
        if other.folder.is_relative_to(run.folder) or run.name in re.split(r"[ ,]+", english(other.title)):
            what = tr(
                "{name} cannot be {done} now: {title} is at work or waits.", name=run.name, done=done, title=other.title
            )
            raise RunError(what, where=run.folder, do=tr("Wait for its end, or stop it, first."))
