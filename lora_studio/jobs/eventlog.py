"""``events.jsonl``: appended by the worker, read by everyone. A torn line is skipped, never fatal."""

from __future__ import annotations

import gc
import os
import sys
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from lora_studio import files
from lora_studio.errors import RunError
from lora_studio.events import Event, parse
from lora_studio.language import tr

_HELD_BACK = 10_000
"""Events that wait for a disk to take them."""
_AT_ONCE = 1 << 20
"""Bytes; a long log is read in pieces, so that its events need not be in memory together."""


class EventLog:
    """The writing end. One worker holds it; training continues if the disk refuses a line, which is written later."""

    def __init__(self, path: Path):
        self.path = path
        self._waiting: deque[bytes] = deque(maxlen=_HELD_BACK)
        self._refused = False
        self._torn = True
        """The file may end in half a line, which would spoil the next one."""

    def append(self, event: Event) -> None:
        """Adds one line, after those that the disk refused before. A full disk is reported once in the worker's log and
        does not end training.
        """
        self._waiting.append(event.line().encode() + b"\n")
        try:
            with open(self.path, "ab") as file:
                if self._torn:
                    file.write(b"\n" * self._ends_torn())
                file.write(b"".join(self._waiting))
            self._waiting.clear()
            self._refused = self._torn = False
        except OSError as error:
            if not self._refused:
                print(f"The event log cannot be written ({error}); training continues.", file=sys.stderr, flush=True)
            self._refused = self._torn = True

    def _ends_torn(self) -> bool:
        with open(self.path, "rb") as file:
            if not file.seek(0, os.SEEK_END):
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"


def read(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Whole lines from byte ``offset`` on, about a megabyte of them at most, and the offset of the next ones: where it
    does not change, there are no more.

    Lines that are no events are skipped; a last line without its newline is left for the next call.

    Raises:
        RunError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(_AT_ONCE)
            data += b"" if data.endswith(b"\n") else file.readline()
    except FileNotFoundError:
        return [], offset
    except OSError as error:
        raise RunError(
            tr("The run's {name} cannot be read: {reason}.", name=path.name, reason=files.reason(error)),
            where=path,
            do=tr("Check that the disk is connected and that you may read the file."),
        ) from error
    end = data.rfind(b"\n") + 1
    found = []
    with _uncollected():
        for line in data[:end].splitlines():
            try:
                found.append(parse(line))
            except ValueError:
                continue
    return found, offset + end


@contextmanager
def _uncollected() -> Generator[None]:
    """Events hold no cycles: searching thousands of new ones for some takes a third of the time of reading them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
