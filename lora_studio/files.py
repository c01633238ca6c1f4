"""Writing files so that a crash or a power cut leaves the old content or the new, never a mixture."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lora_studio.errors import MachineError, StudioError

PARTIAL = ".partial"
"""Ending of what is still being written; nothing reads such a file or folder."""


class DiskFull(MachineError):
    """There is no room left on the disk."""


def refusal(error: OSError, what: str, path: Path) -> StudioError:
    """The error for a disk that refused: ``what`` could not be done at ``path``, since it is full (the space left is
    told), read-only or gone.
    """
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        left = f"{room(path) / 1e6:,.0f} MB are free" if room(path) >= 0 else "no room is left"
        return DiskFull(
            f"{what}: the disk is full, {left}.", where=path, do="Free space on it; what was saved before is intact."
        )
    return MachineError(
        f"{what}: {error.strerror or error}.",
        where=error.filename or path,
        do="Check that the disk is there and can be written, then try again; what was saved before is intact.",
    )


def room(path: Path) -> int:
    """Free bytes on the disk that holds ``path`` or would; -1 where it does not tell."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return -1


def partial(path: Path) -> Path:
    """Where ``path`` is written until it is whole. The name tells by which process, so that ``sweep`` knows if it is
    still held.
    """
    return path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")


def sweep(folder: Path, lives: Callable[[int], bool]) -> list[Path]:
    """Removes from ``folder`` and below it what killed processes left half written, and tells what it was.

    Args:
        lives: whether a process of that number is at work; what it holds is left alone.
    """
    swept = []
    for path in [*folder.rglob(f"*{PARTIAL}")]:
        holder = path.name.removesuffix(PARTIAL).rpartition(".")[2]
        if path.exists() and not (holder.isdigit() and lives(int(holder))):
            _discard(path)
            swept.append(path)
    return swept


def remove(folder: Path) -> None:
    """Removes a folder so that no half of it ever bears its name."""
    doomed = partial(folder.with_name(f"{folder.name}.old"))
    _discard(doomed)
    os.replace(folder, doomed)
    _discard(doomed)


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Makes the folder ``path`` and those that lack above it, durably: each name has to be safe in the folder that it
    stands in.
    """
    new = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in new:
        sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """Makes a rename inside ``folder`` durable. Windows has no such call, and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Brings what was written to ``path`` onto the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def replace(finished: Path, path: Path) -> None:
    """Gives the ``finished`` file or folder its name ``path``, durably."""
    if finished.is_file():
        sync_file(finished)
    os.replace(finished, path)
    sync_folder(path.parent)


def write(path: Path, content: bytes | str) -> None:
    """Writes ``content`` to ``path`` in one step: after a crash the old file or the new one is there."""
    make_folder(path.parent)
    unfinished = partial(path)
    try:
        with open(unfinished, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free(path: Path) -> Path:
    """``path``, or with a number behind its stem where something of that name is there already."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_stem(f"{path.stem}-{number}")
    return found
