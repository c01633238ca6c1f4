"""What was moved to the trash last, kept aside until something else of its kind is: undo brings it back on every
system.

    outputs/.deleted/<kind>/        the files as they were, by their paths within the outputs folder

A hard link costs no space while the trash has the file too. No torch.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_studio import files, runs
from lora_studio.errors import MachineError
from lora_studio.language import tr
from lora_studio.runs import trash

_changing = threading.Lock()
"""Two tabs must not lose what the other deleted."""


@dataclass(frozen=True)
class DeletedKind:
    """What is deleted together.

    Attributes:
        name: of its folder.
        depth: how many folders below ``outputs`` it lies, itself among them.
        numbered: whether it comes back with a number where its name is taken.
        copied: whether it is copied where the disk has no hard links; else it is not kept there.
    """

    name: str
    depth: int
    numbered: bool = False
    copied: bool = True


ADAPTERS = DeletedKind("adapters", 2, numbered=True)
"""Files and what belongs to them, in a run's folder or the library's."""
PRESETS = DeletedKind("presets", 2)
RUNS = DeletedKind("runs", 1, copied=False)
"""Whole folders, which may hold gigabytes. Their files are named after them."""


def delete(paths: Sequence[Path], outputs: Path, kind: DeletedKind = ADAPTERS) -> None:
    """Moves files and folders of ``outputs`` to the system's trash. ``restore`` takes those of the last call back.

    Raises:
        MachineError: one cannot be kept aside, or the system has no trash for this disk; those before it are in the
            trash, and can be taken back.
    """
    with _changing:
        _forget(outputs, kind)
        for path in paths:
            aside = _aside(path, outputs, kind)
            try:
                trash.put(path)
            except MachineError:
                _remove(aside)
                raise


def _aside(path: Path, outputs: Path, kind: DeletedKind) -> Path:
    """Keeps a file or folder."""
    target = _folder(outputs, kind) / path.relative_to(outputs)
    keep = _link_or_copy if kind.copied else _link
    try:
        files.make_folder(target.parent)
        if path.is_dir():
            shutil.copytree(path, target, copy_function=keep)
        else:
            keep(str(path), str(target))
    except OSError as error:
        _remove(target)
        if kind.copied:
            what = tr("{name} cannot be kept for undo, so it was not deleted", name=path.name)
            raise files.refusal(error, what, path) from error
    return target


def _folder(outputs: Path, kind: DeletedKind) -> Path:
    return runs.deleted_folder(outputs) / kind.name


def _link(source: str, target: str) -> str:
    os.link(source, target)
    return target


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def kept(outputs: Path, kind: DeletedKind = ADAPTERS) -> list[Path]:
    """Where what ``restore`` would take back was."""
    folder = _folder(outputs, kind)
    return [outputs / path.relative_to(folder) for path in sorted(folder.glob("/".join("*" * kind.depth)))]


def restore(outputs: Path, kind: DeletedKind = ADAPTERS) -> list[Path]:
    """Takes back what ``delete`` deleted last, and returns where it is now. What finds its name taken gets a number,
    the same for all that were deleted at once.

    Raises:
        MachineError: the disk refuses it, or the name is taken of what cannot get a number; it is still kept.
    """
    back = []
    with _changing:
        targets = kept(outputs, kind)
        suffix = _free_suffix(targets) if kind.numbered else _unnumbered(targets)
        for target in targets:
            path = _folder(outputs, kind) / target.relative_to(outputs)
            place = target.with_name(f"{target.stem}{suffix}{target.suffix}")
            try:
                files.make_folder(place.parent)
                files.patiently(lambda path=path, place=place: os.replace(path, place))
            except OSError as error:
                raise files.refusal(error, tr("{name} cannot be restored", name=target.name), place) from error
            back.append(place)
        _forget(outputs, kind)
    return back


def _unnumbered(targets: Sequence[Path]) -> str:
    for target in targets:
        if os.path.lexists(target):
            what = tr("{name} cannot be restored: something of that name is there now.", name=target.name)
            raise MachineError(what, where=target, do=tr("Rename that, then restore it."))
    return ""


def _free_suffix(targets: Sequence[Path]) -> str:
    number = 1
    while any((one.with_name(f"{one.stem}{_numbered(number)}{one.suffix}")).exists() for one in targets):
        number += 1
    return _numbered(number)


def _numbered(number: int) -> str:
    return "" if number == 1 else f"-{number}"


def forget(outputs: Path, kind: DeletedKind | None = None) -> None:
    """Gives up what ``restore`` could take back, of all kinds or one; the system's trash still has it."""
    with _changing:
        _forget(outputs, kind)


def _forget(outputs: Path, kind: DeletedKind | None) -> None:
    shutil.rmtree(_folder(outputs, kind) if kind else runs.deleted_folder(outputs), ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        files.unlink(path)
