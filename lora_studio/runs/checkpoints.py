"""The saved states of a run: found, checked, starred, pruned. ``training.checkpoint`` knows what is in them.

A star is an empty file ``star`` in the checkpoint's folder, so it is deleted with it. So is the mark of a state that a
rollback left behind.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lora_studio import files, runs
from lora_studio.errors import RunError
from lora_studio.language import tr
from lora_studio.runs import Run, Unreadable

MANIFEST = "manifest.json"
ABOUT = "about.json"
STAR = "star"
_ABANDONED = "abandoned"
_NAME = re.compile(r"step-(0|[1-9][0-9]{0,8})")


class Saved(NamedTuple):
    """One saved state: its step, its folder, whether it is starred, and when it was saved (seconds since the epoch)."""

    step: int
    folder: Path
    starred: bool
    at: float

    @property
    def size(self) -> int:
        """Bytes on the disk, as far as it can be read."""
        total = 0
        for entry in runs.entries(self.folder, []):
            with suppress(OSError):
                total += entry.stat().st_size
        return total


def listed(run: Run) -> list[Saved]:
    """The saved states in the order of their steps, without those that cannot be read. Whether one is undamaged,
    ``complete`` tells.

    Raises:
        RunError: the run's folder of saved states cannot be read.
    """
    unreadable: list[Unreadable] = []
    folders = [Path(entry.path) for entry in runs.entries(run.checkpoints, unreadable)]
    if unreadable:
        raise RunError(unreadable[0].what, where=run.checkpoints, do=unreadable[0].do)
    return sorted(saved for saved in map(_saved, folders) if saved)


def _saved(folder: Path) -> Saved | None:
    """The state in ``folder``; None if it holds none that can be read."""
    step = step_of(folder.name)
    if step is None:
        return None
    try:
        status = os.stat(folder / MANIFEST)
    except OSError:
        return None
    return Saved(step, folder, os.path.exists(folder / STAR), status.st_mtime)


def step_of(name: str) -> int | None:
    """The step of a saved state's folder, named as ``Run.checkpoint`` does; None for any other name, such as
    ``step-²``.
    """
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


def complete(folder: Path) -> bool:
    """Whether the folder holds a checkpoint whose files all match its manifest. All of it is read."""
    return not damage(folder)


def damage(folder: Path, quick: bool = False) -> str:
    """What is wrong with the state in ``folder``, as a clause; empty if nothing is.

    Args:
        quick: only see whether the files are there, instead of reading all of them.
    """
    try:
        hashes = json.loads((folder / MANIFEST).read_text("utf-8"))
        if not hashes:
            return tr("{file} is empty", file=MANIFEST)
        for name, digest in hashes.items():
            if (not os.path.getsize(folder / name)) if quick else files.sha256(folder / name) != digest:
                return tr("{file} is not as it was saved", file=name)
    except FileNotFoundError as error:
        return tr("{file} is missing", file=Path(error.filename).name)
    except OSError as error:
        return tr(
            "{file} cannot be read: {reason}", file=Path(error.filename or folder).name, reason=files.reason(error)
        )
    except (ValueError, AttributeError, TypeError, RecursionError):
        return tr("{file} is not as it was saved", file=MANIFEST)
    return ""


class Damaged(NamedTuple):
    """A state that cannot be resumed from: its step, its folder, and a clause that says why."""

    step: int
    folder: Path
    why: str


def damaged(run: Run, quick: bool = False, above: int = -1) -> list[Damaged]:
    """The damaged states of steps above ``above``, in the order of their steps; those without a manifest too.

    Args:
        quick: as of ``damage``.
    """
    folders = [(step_of(entry.name), Path(entry.path)) for entry in runs.entries(run.checkpoints, [])]
    found = [
        Damaged(step, folder, damage(folder, quick)) for step, folder in folders if step is not None and step > above
    ]
    return sorted(one for one in found if one.why)


def latest(run: Run) -> Path | None:
    """The undamaged checkpoint of the highest step, if there is one."""
    return next((saved.folder for saved in reversed(listed(run)) if complete(saved.folder)), None)


def newest_step(run: Run) -> int | None:
    """The step of ``latest``."""
    newest = latest(run)
    return step_of(newest.name) if newest else None


def find(run: Run, step: int) -> Saved:
    """The undamaged state of ``step``.

    Raises:
        RunError: there is none, or it is damaged or cannot be read; the steps that there are are named.
    """
    there = listed(run)
    found = next((saved for saved in there if saved.step == step), None)
    if found is None:
        known = [str(saved.step) for saved in there]
        raise RunError(
            tr("The run {name} has no saved state of step {step}.", name=run.name, step=step),
            where=run.checkpoints,
            do=tr("Its saved states: {steps}.", steps=known) if known else tr("It has no saved states yet."),
        )
    if why := damage(found.folder):
        what = tr("The saved state of step {step} is damaged: {why}.", step=step, why=why)
        raise RunError(what, where=found.folder, do=tr("Choose another one."))
    return found


def about(folder: Path) -> dict:
    """The ``settings`` and ``pictures`` that the state was saved with; empty if that was not recorded."""
    try:
        return dict(json.loads((folder / ABOUT).read_text("utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def copy(saved: Saved, run: Run) -> None:
    """Copies the state into ``run``, completely or not at all.

    Raises:
        OSError: the disk refuses; nothing is left behind.
    """
    final = run.checkpoint(saved.step)
    unfinished = files.partial(final)
    try:
        for name in [*json.loads((saved.folder / MANIFEST).read_text()), MANIFEST]:
            files.write(unfinished / name, (saved.folder / name).read_bytes())
        files.replace(unfinished, final)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def star(run: Run, step: int, on: bool = True) -> None:
    """Protects the state of ``step`` from being pruned, or ends that. Doing it twice changes nothing.

    Raises:
        RunError: there is no such state.
    """
    mark = find(run, step).folder / STAR
    if on:
        mark.touch()
    else:
        files.unlink(mark)


def abandon(run: Run, after: int) -> list[Path]:
    """Marks the saved states of steps above ``after``, which a rollback has left behind: the run learns these steps
    anew. Where the disk takes no mark, there is none.

    Returns:
        Their folders.

    Raises:
        RunError: the run's folder of saved states cannot be read.
    """
    left = [saved.folder for saved in listed(run) if saved.step > after]
    for folder in left:
        with suppress(OSError):
            (folder / _ABANDONED).touch()
    return left


def abandoned(folder: Path) -> bool:
    """Whether a rollback has left the state in ``folder`` behind, so that it is to be removed."""
    return (folder / _ABANDONED).exists()


def prune(run: Run, last: int, every: int) -> list[int]:
    """Deletes saved states and returns their steps. The newest ``last`` are kept, those at multiples of ``every`` (0:
    no such rule), and starred ones.

    Raises:
        OSError: a state could not be removed; all others were.
    """
    removed, refused = [], None
    for saved in listed(run)[:-last]:
        if not saved.starred and not (every and saved.step % every == 0):
            try:
                files.remove(saved.folder)
                removed.append(saved.step)
            except OSError as error:
                refused = error
    if refused:
        raise refused
    return removed
