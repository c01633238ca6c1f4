"""Locks on files: one process has it, and the system takes it from that process when it ends, however it ends."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if os.name == "nt":
    import msvcrt
else:
    import fcntl

_BYTE = 1 << 30
"""Windows locks bytes, and keeps others from reading them: one far behind the content."""
_UNKNOWN = {errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK}
"""What network drives without locks say. There one has to do without."""


class Lock:
    """A lock on the file at ``path``, which is made if need be and may hold a note."""

    def __init__(self, path: Path):
        self.path, self._handle = path, -1

    def acquire(self) -> bool:
        """Takes the lock if nobody has it, and tells whether it is now ours. Taking it twice is taking it once.

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
        """Lets go; without the lock it does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def note(self, text: str) -> None:
        """Leaves ``text`` in the file for those who find it locked."""
        os.ftruncate(self._handle, 0)
        os.lseek(self._handle, 0, os.SEEK_SET)
        os.write(self._handle, text.encode())


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
def held(path: Path, poll: float = 0.02) -> Iterator[None]:
    """Within it this process has the lock; waits for it."""
    lock = Lock(path)
    while not lock.acquire():
        time.sleep(poll)
    try:
        yield
    finally:
        lock.release()
