"""``events.jsonl``: appended by the worker, read by everyone. A torn line is skipped, never fatal."""

from __future__ import annotations

import sys
from pathlib import Path

from lora_studio.events import Event, parse


class EventLog:
    """The writing end. One worker holds it; training goes on if the disk refuses a line."""

    def __init__(self, path: Path):
        self.path = path
        self._refused = False
        self._mend_torn_end()

    def _mend_torn_end(self) -> None:
        """A line that a crash tore off would swallow the next one: ends it."""
        if not self.path.exists() or not self.path.stat().st_size:
            return
        with open(self.path, "rb+") as file:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")

    def append(self, event: Event) -> None:
        """Adds one line. A full disk is reported once in the worker's log and does not end training."""
        try:
            with open(self.path, "ab") as file:
                file.write(event.line().encode() + b"\n")
            self._refused = False
        except OSError as error:
            if not self._refused:
                print(f"The event log cannot be written ({error}); training goes on.", file=sys.stderr, flush=True)
            self._refused = True


def read(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """The whole lines from byte ``offset`` on, and the offset to go on from.

    Lines that are no event are skipped; a last line without its newline is left for the next call.
    """
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    end = data.rfind(b"\n") + 1
    found = []
    for line in data[:end].splitlines():
        try:
            found.append(parse(line))
        except ValueError:
            continue
    return found, offset + end
