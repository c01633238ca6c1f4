"""Memory, load and temperature of what computes, read beside it: by ``nvidia-smi`` of NVIDIA's cards, else of the
computer itself. Nothing of it touches the process that trains.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import psutil

EVERY = 5.0
"""Seconds between two readings, at least."""
PATIENCE = 4.0
"""Seconds that ``nvidia-smi`` may take: on some machines it starts the driver anew each time."""
_AFTER_A_FAILURE = 60.0
"""Seconds until a driver that did not answer is asked again."""
_FIELDS = "name,memory.used,memory.total,utilization.gpu,temperature.gpu"


class DeviceHealth(NamedTuple):
    """One card, or the computer. What cannot be told is None."""

    name: str
    """Empty for the computer."""
    used: int | None
    total: int | None
    """Of its memory, in bytes."""
    load: float | None
    """In per cent."""
    temperature: float | None
    """In degrees Celsius."""


class HealthMonitor:
    """The latest readings, for all tabs. Whoever asks never waits: a reading that is too old is made anew in a thread.

    Args:
        ask: gives the output of ``nvidia-smi``. Raises OSError or subprocess.SubprocessError where there is none.
    """

    def __init__(self, ask: Callable[[], str] = lambda: _asked()):
        self._ask, self._lock = ask, threading.Lock()
        self._cards: list[DeviceHealth] = []
        self._next = 0.0
        self._reading: threading.Thread | None = None
        psutil.cpu_percent()  # the first call has nothing to measure from

    def cards(self) -> list[DeviceHealth]:
        """NVIDIA's cards, as they were a few seconds ago; none where the driver does not tell."""
        with self._lock:
            if time.monotonic() >= self._next and not (self._reading and self._reading.is_alive()):
                self._reading = threading.Thread(target=self._read, daemon=True)
                self._reading.start()
            return self._cards

    def computer(self) -> DeviceHealth:
        """The computer's memory, and how busy its processors were since the last call."""
        memory = psutil.virtual_memory()
        return DeviceHealth("", memory.total - memory.available, memory.total, psutil.cpu_percent(), None)

    def _read(self) -> None:
        try:
            found, wait = parsed(self._ask()), EVERY
        except (OSError, subprocess.SubprocessError):
            found, wait = [], _AFTER_A_FAILURE
        with self._lock:
            self._cards, self._next = found, time.monotonic() + wait


def _asked() -> str:
    query = ["nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # or a console flashes up on Windows
    done = subprocess.run(query, capture_output=True, text=True, timeout=PATIENCE, check=True, creationflags=hidden)
    return done.stdout


def parsed(text: str) -> list[DeviceHealth]:
    """The cards in the output of ``nvidia-smi``, where memory is in MiB. What a card does not support is None.

    >>> parsed("NVIDIA GeForce RTX 4090, 12288, 24576, 97, 66\\nTesla K80, 0, 11441, [N/A], [Not Supported]")[1]
    DeviceHealth(name='Tesla K80', used=0, total=11996758016, load=None, temperature=None)
    """
    found = []
    for line in text.splitlines():
        fields = [part.strip() for part in line.split(",")]
        if len(fields) == len(_FIELDS.split(",")):
            used, total, load, temperature = map(_number, fields[1:])
            found.append(DeviceHealth(fields[0], _bytes(used), _bytes(total), load, temperature))
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _bytes(mebibytes: float | None) -> int | None:
    return None if mebibytes is None else int(mebibytes * 2**20)
