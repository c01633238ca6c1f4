"""Whether a process that was noted in a file still lives: the system gives process ids out again."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from lora_studio import files

POLL = 1.0
"""Seconds between two looks whether a parent lives."""
_TOLERANCE = 1.0
"""Seconds by which the start of one process may seem to differ between two looks."""
_MALFORMED = (OSError, ValueError, KeyError, TypeError, ArithmeticError, AttributeError, RecursionError)


def note(pid: int) -> dict[str, Any]:
    """What tells process ``pid`` from all others that get its id later.

    On Linux that is the boot's id and the tick at which it started since then (proc_pid_stat(5), field 22). The time of
    day, which other systems record when a process starts, is computed there, and moves whenever the clock is set.

    Raises:
        psutil.Error: there is no such process.
    """
    return {"pid": pid, "started": psutil.Process(pid).create_time(), **_since_boot(pid)}


def read(path: Path) -> dict[str, Any] | None:
    """The note in a JSON file if its process lives; None if not, or if the file is missing or damaged."""
    try:
        noted = json.loads(files.patiently(path.read_text))
        return noted if lives(noted) else None
    except _MALFORMED:
        return None


def lives(noted: dict[str, Any]) -> bool:
    """Whether the process of ``note`` lives. A note of an earlier version, without the boot, is compared by the time of
    day.

    Raises:
        KeyError, TypeError, ArithmeticError: it is no such note.
    """
    try:
        process = psutil.Process(noted["pid"])
        now = _since_boot(process.pid) if "boot" in noted else {}
        if now:
            same = (noted["boot"], noted["tick"]) == (now["boot"], now["tick"])
        else:
            same = abs(process.create_time() - noted["started"]) < _TOLERANCE
        return same and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def end_with(parent: int, status: int) -> None:
    """From now on this process ends as soon as its ``parent`` has, with the exit ``status``."""
    threading.Thread(target=_end_with, args=[parent, status], daemon=True).start()


def _end_with(parent: int, status: int) -> None:
    while os.getppid() == parent and psutil.pid_exists(parent):
        time.sleep(POLL)
    os._exit(status)


def _since_boot(pid: int) -> dict[str, Any]:
    """``boot`` and ``tick``; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # the name may hold brackets
        return {"boot": boot, "tick": int(fields[19])}
    except (OSError, ValueError, IndexError):
        return {}
