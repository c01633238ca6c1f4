"""The comparison of runs as a job: it has a place in the queue, and works in the process of the command that began it.
Imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lora_studio import events as e
from lora_studio import files, runs
from lora_studio.events import State
from lora_studio.jobs import job, queue
from lora_studio.jobs.job import Job
from lora_studio.language import both, tr


@dataclass
class ComparingView:
    """Whether it works or waits."""

    state: State
    waits_for: str = ""
    seconds_left: float | None = None
    error: e.Failed | None = None


@dataclass(frozen=True)
class ComparingJob(Job):
    """The job of a comparison of the runs ``compared``. Stopped, it keeps the states that it has judged."""

    compared: tuple[str, ...] = ()

    noun = tr("comparison")

    @property
    def name(self) -> str:
        return "-".join(self.compared)

    @property
    def outputs(self) -> Path:
        return self.folder.parent.parent.parent

    @property
    def title(self) -> str:
        return tr("the comparison of {names}", names=both(self.compared))

    @property
    def activity(self) -> str:
        return tr("runs are compared")

    def view(self) -> ComparingView:
        waits = job.waits_for(self)
        return ComparingView(State.QUEUED if waits else State.RUNNING if self.alive else State.INTERRUPTED, waits)


@contextmanager
def turn(compared: Sequence[str], outputs: Path, tell: Callable[[str], None]) -> Generator[Callable[[], bool]]:
    """Waits for the turn of a comparison among runs and jobs, and holds the device within it. Gives what says whether
    it was asked to stop, which within the wait too ends it.

    Args:
        compared: the names of the runs.
        tell: gets a sentence if it has to wait.

    Raises:
        Stopped: it was asked to stop before its turn.
        MachineError: the disk refuses.
    """
    places = runs.comparing_folder(outputs.resolve())
    mine = ComparingJob(places / str(os.getpid()), tuple(compared))
    try:
        _remove_ended(places)
        mine.register(os.getpid())
    except OSError as error:
        raise files.refusal(error, tr("The comparison cannot be started"), mine.folder) from error
    try:
        if waits := job.waits_for(mine):
            tell(tr("Waiting for {waits}…", waits=waits))
        lock = queue.wait_for_job(mine, mine.stop_file.exists)
        if lock is None:
            raise Stopped
        try:
            yield mine.stop_file.exists
        finally:
            lock.release()
    finally:
        with suppress(OSError):  # the next comparison removes it
            files.remove(mine.folder)


class Stopped(Exception):
    """It was asked to stop."""


def _remove_ended(places: Path) -> None:
    """Removes what killed comparisons left behind."""
    for entry in runs.entries(places, []):
        if not ComparingJob(Path(entry.path)).alive:
            files.remove(Path(entry.path))
