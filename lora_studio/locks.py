"""Locks on files. One process holds a lock, and the system releases it when that process ends for whatever reason."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

if os.name == "nt":
    import msvcrt
else:
    import fcntl

_BYTE = 1 << 30
"""Windows locks bytes and prevents reading them, so this is one far after the content."""
_UNKNOWN = {errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK}
"""What file systems without locks answer. There the lock is taken for granted."""


class Lock:
    """A lock on the file at ``path``, which is created if necessary and may hold a note."""

    def __init__(self, path: Path):
        self.path, self._handle = path, -1

    def acquire(self) -> bool:
        """Takes the lock if nobody holds it, and returns whether this process holds it now.

        Raises:
            OSError: the file cannot be opened.
        """
        if self._handle >= 0:
            return True
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        if not _locked(handle):
            os.close(handle)
            return False
        self._handle = handle
        return True

    def release(self) -> None:
        """Releases the lock if it is held."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def note(self, text: str) -> None:
        """Writes ``text`` into the file for others that find it locked."""
        os.ftruncate(self._handle, 0)
        os.lseek(self._handle, 0, os.SEEK_SET)
        os.write(self._handle, text.encode())


def taken(path: Path) -> bool:
    """Whether somebody holds the lock on ``path``, in this process or another one. Takes it for a moment to find out; a
    file that is not there is not created.
    """
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _locked(handle)
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        if os.name == "nt":
            os.lseek(handle, _BYTE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        return error.errno in _UNKNOWN


@contextmanager
def held(path: Path, poll: float = 0.02) -> Generator[None]:
    """Waits for the lock, and holds it within the ``with``."""
    lock = Lock(path)
    while not lock.acquire():
        time.sleep(poll)
    try:
        yield
    finally:
        lock.release()
