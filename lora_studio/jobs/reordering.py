"""Changing the order of those that wait in the queue. What is at work stays where it is."""

from __future__ import annotations

from pathlib import Path

from lora_studio import events as e
from lora_studio import files, locks
from lora_studio.errors import RunError
from lora_studio.events import State
from lora_studio.jobs import identity, queue, runner
from lora_studio.jobs.glance import glance
from lora_studio.jobs.queue import QueueEntry
from lora_studio.language import tr
from lora_studio.runs import notes


def waits(entry: QueueEntry) -> bool:
    """Whether it waits for its turn, so that its place can change."""
    if entry.job:
        return entry.job.waits
    assert entry.run
    if runner.waits(entry.run):
        return True
    latest = glance(entry.run).latest  # a worker of its own may wait, too
    return isinstance(latest, e.StateChanged) and latest.state is State.QUEUED


def move(outputs: Path, key: str, up: bool) -> None:
    """Exchanges the entry ``key`` with the one that waits before it (``up``) or behind it. Does nothing where there is
    none.

    Raises:
        RunError: it no longer waits.
        MachineError: the disk refuses.
    """
    line = [entry for entry in queue.line(outputs) if waits(entry)]
    places = [entry.key for entry in line]
    if key not in places:
        what = tr("That no longer waits in the queue: its turn has come, or it was taken out.")
        raise RunError(what, where=key, do=tr("Look at the queue again."))
    here = places.index(key)
    there = here - 1 if up else here + 1
    if 0 <= there < len(line):
        one, other = line[here], line[there]
        try:
            _give(one, other.place)
            _give(other, one.place)
        except OSError as error:
            raise files.refusal(error, tr("The queue cannot be changed"), outputs) from error


def _give(entry: QueueEntry, place: int) -> None:
    """Writes its place where it is noted; nothing if its turn has come meanwhile."""
    with locks.held(entry.folder / "start.lock"):
        if not waits(entry):
            return
        if entry.run and runner.waits(entry.run):
            noted = entry.run.ticket_file
            found = notes.read(noted)
            found = found if isinstance(found, dict) else {"variables": {}}  # a damaged one still has its place
        else:
            noted = entry.folder / "worker.json"
            found = identity.read(noted)
        if found:
            notes.write(noted, {**found, "queued": place})
