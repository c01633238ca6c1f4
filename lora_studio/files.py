"""Writing files so that a crash or a power cut leaves the old content or the new, never a mixture."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import time
import unicodedata
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lora_studio.errors import MachineError, StudioError
from lora_studio.language import tr

T = TypeVar("T")

PARTIAL = ".partial"
"""Ending of what is still being written; nothing reads such a file or folder."""
_KEPT_OF_A_NAME = 40
"""Characters of a file's name that its partial file repeats: with its own ending it must not exceed 255 bytes."""

_NO_FOLDER_SYNC = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM}
"""What network and FUSE file systems answer that cannot sync a folder (fsync(2); PostgreSQL's ``fsync_fname`` passes
over the same). Renames there are as durable as the file system makes them.
"""
_SHARED = {5, 32, 33}
"""Windows' ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION and ERROR_LOCK_VIOLATION: what a rename or a deletion meets
while another program, such as a virus scanner, has the file open.
"""
_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Seconds to wait between the attempts; 0.9 s in all."""
_WRITERS = 8
"""Threads of ``write_all``."""


_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that Windows keeps for devices, with any ending."""
_MOST_CHARACTERS, _MOST_BYTES = 60, 180
"""Of a safe name: its owner adds an ending and maybe a number, and file systems take 255 bytes."""


_ADVICE = {
    errno.EACCES: tr("Give yourself permission to read and write there, or choose another folder."),
    errno.EPERM: tr("Give yourself permission to read and write there, or choose another folder."),
    errno.EROFS: tr("That disk is read-only: make it writable, or choose a folder on another one."),
    errno.ENAMETOOLONG: tr("Use shorter names: a system takes about 255 bytes for each part of a path."),
    errno.ENOENT: tr("Check that the folder still exists and that its disk is connected."),
    errno.ENOTDIR: tr("A file is in the place of a folder: move it away."),
    errno.EISDIR: tr("A folder is in the place of a file: move it away."),
    errno.EIO: tr("The disk reports a failure: check its cable, and copy what is on it to another disk."),
    errno.EMFILE: tr("Too many files are open: close other programs, then try again."),
    errno.ENFILE: tr("Too many files are open: close other programs, then try again."),
    errno.ENOSPC: tr("Free some space, then try again."),
    errno.EDQUOT: tr("Free some space, or ask for a larger quota, then try again."),
}
"""What to do about a refusal of the disk, by its number."""


class DiskFull(MachineError):
    """The disk is full."""


def refusal(error: OSError, what: str, path: Path) -> StudioError:
    """The error for a disk that refused an operation: it is full, read-only or gone, or another program has the file
    open.

    Args:
        what: what could not be done, as a sentence without its full stop.
        path: where it was tried; the free space of its disk is named.
    """
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        full = tr("{what}: the disk is full, no space is left.", what=what)
        if (left := room(path)) >= 0:
            full = tr("{what}: the disk is full, {free:,.0f} MB are free.", what=what, free=left / 1e6)
        return DiskFull(full, where=path, do=tr("Free some space; what was saved before is intact."))
    where = printable(error.filename or path)
    if getattr(error, "winerror", None) in _SHARED - {5}:
        return MachineError(
            tr("{what}: another program has the file open.", what=what),
            where=where,
            do=tr("Close that program, or let a virus scanner or sync client finish, then try again."),
        )
    return MachineError(tr("{what}: {reason}.", what=what, reason=reason(error)), where=where, do=advice(error))


def advice(error: OSError) -> str:
    """What to do about a disk that refused an operation, by the cause that the system gave."""
    return _ADVICE.get(error.errno or 0, tr("Check that the disk is connected and writable, then try again."))


def printable(text: object) -> str:
    """``text`` with what is not valid Unicode, as in a file name of another encoding, written as ``\\udcff``. Event
    logs, JSON and pages cannot hold it otherwise.
    """
    return str(text).encode("utf-8", "backslashreplace").decode()


def is_text(name: object) -> bool:
    """Whether a name or path is valid Unicode, so that settings, logs and pages can hold it."""
    return str(name) == printable(name)


def reason(error: OSError) -> str:
    """The system's own words for an error, without its number: ``Permission denied``."""
    return error.strerror or str(error) or type(error).__name__


def room(path: Path) -> int:
    """Free bytes on the disk that holds ``path``, which need not exist yet; -1 if the system does not tell."""
    while not os.path.exists(path) and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return -1


def partial(path: Path) -> Path:
    """A new name beside ``path`` to write it under until it is complete. No two calls give the same name, so that
    threads and processes can write one path at once; it holds the process id, which tells ``sweep`` who is writing.
    """
    return path.with_name(f"{path.name[:_KEPT_OF_A_NAME]}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")


def sweep(folder: Path, lives: Callable[[int], bool]) -> list[Path]:
    """Removes the partial files and folders that killed processes left in ``folder`` and below, and returns their
    paths. What cannot be removed stays for the next sweep.

    Args:
        lives: whether the process with this id is running; what it is writing is left alone.
    """
    swept = []
    for path in [*folder.rglob(f"*{PARTIAL}")]:
        writer = path.name.removesuffix(PARTIAL).rpartition(".")[2].partition("-")[0]
        if os.path.lexists(path) and not (writer.isdecimal() and lives(int(writer))) and _discard(path):
            swept.append(path)
    return swept


def remove(folder: Path) -> None:
    """Removes a folder; at no moment does an incomplete one have its name.

    Raises:
        OSError: the folder cannot be renamed; it is still complete.
    """
    doomed = partial(folder)
    patiently(lambda: os.replace(folder, doomed))
    _discard(doomed)


def unlink(path: Path) -> bool:
    """Deletes a file and returns whether it was there.

    Raises:
        OSError: it cannot be deleted; on Windows after a second, if another program has it open.
    """
    try:
        patiently(lambda: os.unlink(path))
        return True
    except FileNotFoundError:
        return False


def patiently(do: Callable[[], T]) -> T:
    """The result of ``do``; tried again for a second while Windows says that another program has the file open."""
    for pause in _PAUSES:
        try:
            return do()
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _SHARED:
                raise
            time.sleep(pause)
    return do()


def _discard(path: Path) -> bool:
    """Deletes a file or folder as far as the system allows, and returns whether it is gone."""
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            unlink(path)
        except OSError:
            return False
    return not os.path.lexists(path)


def make_folder(path: Path) -> None:
    """Makes the folder ``path`` and its missing parents, and syncs the folder that holds each new one."""
    new = [one for one in (path, *path.parents) if not os.path.exists(one)]
    path.mkdir(parents=True, exist_ok=True)
    for one in new:
        sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames inside ``folder`` durable. Does nothing where that cannot be asked for: Windows has no such call,
    and some network and FUSE file systems refuse it.

    Raises:
        OSError: the disk failed.
    """
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Brings what was written to ``path`` onto the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def replace(finished: Path, path: Path) -> None:
    """Renames the ``finished`` file or folder to ``path``, durably. A file that is there is replaced.

    Raises:
        OSError: the disk refuses; on Windows after a second, if another program has ``path`` open.
    """
    if finished.is_file():
        sync_file(finished)
    patiently(lambda: os.replace(finished, path))
    sync_folder(path.parent)


def write(path: Path, content: bytes | str) -> None:
    """Writes ``content`` to ``path`` atomically: after a crash the old file or the new one is there, complete. Of
    several threads or processes that write one path at once, the last to finish wins.

    Raises:
        OSError: the disk refuses; the old file is intact.
    """
    make_folder(path.parent)
    unfinished = partial(path)
    try:
        _fill(unfinished, content)
        replace(unfinished, path)
    finally:
        unlink(unfinished)


def write_all(contents: Mapping[Path, bytes]) -> None:
    """``write`` of many files. Several threads wait for the disk at once, and all are written under other names before
    the first is replaced.

    Raises:
        OSError: the disk refuses. While files are written, none is replaced then; of a refused rename, those before it.
    """
    folders = {path.parent for path in contents}
    for folder in folders:
        make_folder(folder)
    unfinished = {path: partial(path) for path in contents}
    try:
        with ThreadPoolExecutor(_WRITERS) as pool:
            for _ in pool.map(lambda path: _fill(unfinished[path], contents[path]), contents):
                pass
        for path in contents:
            patiently(lambda path=path: os.replace(unfinished[path], path))
            del unfinished[path]
    finally:
        for left in unfinished.values():
            unlink(left)
    for folder in folders:
        sync_folder(folder)


def _fill(path: Path, content: bytes | str) -> None:
    """Makes a new file and brings its content onto the disk."""
    with open(path, "xb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def copy(source: Path, path: Path) -> None:
    """Copies a file to ``path`` atomically.

    Raises:
        OSError: it cannot be read, or the disk refuses; nothing is left behind.
    """
    unfinished = partial(path)
    try:
        shutil.copyfile(source, unfinished)
        replace(unfinished, path)
    finally:
        unlink(unfinished)


def sha256(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_name(text: str, spaces: bool = False) -> str:
    """``text`` as a file name without an ending that every system takes: no path, no reserved word, at most 60
    characters. Accents are composed: macOS takes them apart in names.

    Args:
        spaces: keep single spaces; otherwise they become hyphens as other signs do.

    >>> safe_name("../../Ma Tante: été")
    'Ma-Tante-été'
    """
    last = " ".join(unicodedata.normalize("NFC", text).replace("\\", "/").rsplit("/", 1)[-1].split())
    name = re.sub(r"[^\w. -]+" if spaces else r"[^\w.-]+", "-", last).strip("-. ")[:_MOST_CHARACTERS]
    name = name.encode("utf-8", "ignore")[:_MOST_BYTES].decode("utf-8", "ignore").rstrip("-. ")
    return f"run-{name}".rstrip("-") if not name or _RESERVED.fullmatch(name) else name


def absolute(text: str) -> str:
    """A path that exists, made absolute for a worker in another folder; anything else (a hub name) unchanged. A link
    keeps its name, which may tell what a model is: in the hub's cache, the file behind it is named by its hash alone.
    """
    path = os.path.expanduser(text)  # unlike Path.expanduser it takes any name after the tilde
    return os.path.abspath(path) if text and os.path.exists(path) else text


def free(path: Path) -> Path:
    """``path``, or ``path`` with a number after its stem if that name is taken."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_stem(f"{path.stem}-{number}")
    return found
