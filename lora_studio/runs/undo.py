"""What was moved to the trash last, kept aside until something else is: undo brings it back on every system.

    outputs/.deleted/        the files as they were, by their paths within the outputs folder

A hard link costs no space while the trash has the file too. No torch.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from lora_studio import files, runs
from lora_studio.errors import MachineError
from lora_studio.language import tr
from lora_studio.runs import trash

_changing = threading.Lock()
"""Two tabs must not lose what the other deleted."""


def delete(paths: Sequence[Path], outputs: Path) -> None:
    """Moves files and folders of ``outputs`` to the system's trash. ``restore`` takes those of the last call back.

    Raises:
        MachineError: one cannot be kept aside, or the system has no trash for this disk; those before it are in the
            trash, and can be taken back.
    """
    with _changing:
        _forget(outputs)
        for path in paths:
            aside = _aside(path, outputs)
            try:
                trash.put(path)
            except MachineError:
                _remove(aside)
                raise


def _aside(path: Path, outputs: Path) -> Path:
    """Keeps a file or folder: as hard links, or as copies if the disk has no hard links."""
    target = runs.deleted_folder(outputs) / path.relative_to(outputs)
    try:
        files.make_folder(target.parent)
        if path.is_dir():
            shutil.copytree(path, target, copy_function=_link)
        else:
            _link(str(path), str(target))
    except OSError as error:
        _remove(target)
        what = f"{path.name} cannot be kept for undo, so it was not deleted"
        raise files.refusal(error, what, path) from error
    return target


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def restore(outputs: Path) -> list[Path]:
    """Takes back what ``delete`` deleted last, and returns where it is now. What finds its name taken gets a number,
    the same for all that were deleted at once.

    Raises:
        MachineError: the disk refuses it.
    """
    kept, back = runs.deleted_folder(outputs), []
    with _changing:
        found = [path for path in sorted(kept.rglob("*")) if _is_top(path, kept)]
        targets = [outputs / path.relative_to(kept) for path in found]
        suffix = _free_suffix(targets)
        for path, target in zip(found, targets, strict=True):
            place = target.with_name(f"{target.stem}{suffix}{target.suffix}")
            try:
                files.make_folder(place.parent)
                files.patiently(lambda path=path, place=place: os.replace(path, place))
            except OSError as error:
                raise files.refusal(error, tr("{name} cannot be restored", name=target.name), place) from error
            back.append(place)
        _forget(outputs)
    return back


def _is_top(path: Path, kept: Path) -> bool:
    """Whether ``path`` was deleted itself: adapters and what belongs to them lie in a run's folder or the library's."""
    return len(path.relative_to(kept).parts) == 2


def _free_suffix(targets: Sequence[Path]) -> str:
    number = 1
    while any((one.with_name(f"{one.stem}{_numbered(number)}{one.suffix}")).exists() for one in targets):
        number += 1
    return _numbered(number)


def _numbered(number: int) -> str:
    return "" if number == 1 else f"-{number}"


def forget(outputs: Path) -> None:
    """Gives up what ``restore`` could take back; the system's trash still has it."""
    with _changing:
        _forget(outputs)


def _forget(outputs: Path) -> None:
    shutil.rmtree(runs.deleted_folder(outputs), ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        files.unlink(path)
