"""A process that has its libraries imported and waits for the page's next run, which then begins seconds sooner. The
studio's side: imports no torch.

``want`` starts it, once ``enable`` was called: by the studio, and nothing else. The process ends by itself when nobody
wanted it for minutes, when something is at work, when memory is short, and when its input closes, as it does when the
studio ends or is killed (``warm_worker``). To hand a run over, its folder goes out as a line; the process answers with
a line, and is the run's worker from then on. Where that fails, the run gets a worker of its own. Until then it
estimates the memory of runs, and looks whether they can begin: their settings go out as a line, and the answer is a
line.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lora_studio import files, runs
from lora_studio.config.settings import Settings
from lora_studio.errors import StudioError
from lora_studio.jobs import environment
from lora_studio.language import handover
from lora_studio.runs import Run

LEAST = 6 * 2**30
"""Bytes of free memory below which there is none: it takes about one, and a run several."""
PATIENCE = 3.0
"""Seconds within which it answers."""
_LOOKING = 20.0
"""Seconds within which it has looked whether a run can begin: it may read an adapter and a base model's headers."""
SWITCH = "LORA_STUDIO_WARM"
"""Environment variable; 0 switches it off."""
TAKEN = b"taken\n"
READY = b"ready\n"
"""Its libraries are imported: from now on it estimates."""
ESTIMATE, CHECK = b"?", b"!"
"""Begin a line that holds a run's settings: what memory will it take, and can it begin?"""


@dataclass(frozen=True)
class MemoryEstimate:
    """What a run takes, by arithmetic, in bytes."""

    peak: int
    """The most at any time; on a CPU with Python and its libraries."""
    limit: int
    """What the device has."""


class _WarmProcess:
    """The process, and what it says."""

    def __init__(self, process: subprocess.Popen):
        self.process = process
        self.ready = threading.Event()
        """Set once it estimates, and when it says nothing any more."""
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Until it is a run's worker, which has nothing to say here, or has ended."""
        assert self.process.stdout is not None, "a pipe"
        with self.process.stdout as said:
            for line in iter(said.readline, b""):
                if line == READY:
                    self.ready.set()
                    continue
                self._lines.put(line)
                if line == TAKEN:
                    break
        self._lines.put(b"")  # whoever waits for an answer gets none
        self.ready.set()

    def lives(self) -> bool:
        """Whether it can be asked."""
        return self.process.poll() is None

    def tell(self, line: bytes) -> None:
        """Raises OSError where it has just ended."""
        assert self.process.stdin is not None, "a pipe"
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def answer(self, patience: float = PATIENCE) -> bytes:
        """Its next line; empty where none comes in time."""
        try:
            return self._lines.get(timeout=patience)
        except queue.Empty:
            return b""

    def end(self) -> None:
        """Ends it at once."""
        self.process.kill()
        self.process.wait()


_lock = threading.Lock()
_outputs: Path | None = None
_process: _WarmProcess | None = None


def enable(outputs: Path) -> None:
    """From now on ``want`` starts a process for runs of ``outputs``."""
    global _outputs
    _outputs = None if os.environ.get(SWITCH) == "0" else outputs


def want(busy: bool) -> None:
    """A run may be started soon: there is a process, for the next minutes. There is none where none can be started, or
    something is at work.

    Args:
        busy: whether something is at work, beside which it would only take memory.
    """
    global _process
    with _lock:
        if _outputs is None or busy or not psutil.virtual_memory().available > LEAST:
            return
        with suppress(OSError):  # it cannot be started, or has just ended
            if _process is None or not _process.lives():
                _process = _WarmProcess(_started(_outputs))
            else:
                _process.tell(b"")


def wait(seconds: float) -> None:
    """Until ``estimate`` has answers, or there will be none."""
    if process := _process:
        process.ready.wait(seconds)


def estimate(settings: Settings) -> MemoryEstimate | None:
    """What the run will take on this machine; None where that is not known: there is no process, it still imports its
    libraries, or it cannot be told of this base model.
    """
    found = _asked(ESTIMATE, settings, PATIENCE)
    return MemoryEstimate(**found) if found else None


def require_possible(settings: Settings, adapter: Path | None) -> None:
    """As ``training.creating.require_possible``, for a page that never loads torch. Where there is no process, the run
    itself will tell.

    Raises:
        StudioError: why the run cannot begin.
    """
    found = handover.taken(_asked(CHECK, settings, _LOOKING, adapter=str(adapter or "")))
    if found:
        raise StudioError(found["what"], where=found["where"], do=found["do"])


def _asked(question: bytes, settings: Settings, patience: float, **more: str) -> dict[str, Any] | None:
    """The answer of the process; None where it has none, or there is no process that has its libraries."""
    global _process
    with _lock:
        if _process is None or not _process.ready.is_set() or not _process.lives():
            return None
        try:
            _process.tell(question + json.dumps({"settings": settings.flat(), **more}).encode())
        except OSError:  # it has just ended
            return None
        if not (answer := _process.answer(patience)):  # it hangs; later it would be taken for that to a run
            _process.end()
            _process = None
    return json.loads(answer or b"null")


def hand_over(run: Run) -> subprocess.Popen | None:
    """The process, which is the run's worker from now on; None where there is none."""
    global _process
    with _lock:
        if run.folder.parent != _outputs:
            return None
        process, _process = _process, None
    if process is None or not process.lives():
        return None
    assert process.process.stdin is not None, "a pipe"
    with process.process.stdin:
        with suppress(OSError):  # it has just ended: the run gets a worker of its own
            process.tell(os.fsencode(run.folder))
            if process.answer() == TAKEN:
                return process.process
        process.end()
    return None


def close() -> None:
    """Ends the process, if there is one."""
    global _process
    with _lock:
        process, _process = _process, None
    if process and process.process.stdin:
        with suppress(OSError):
            process.process.stdin.close()


def _started(outputs: Path) -> subprocess.Popen:
    log = runs.cache_folder(outputs) / "warm.log"
    files.make_folder(log.parent)
    with open(log, "wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "lora_studio.jobs.warm_worker", str(outputs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**environment.environment(), handover.ASKED: "1"},
            **environment.DETACHED,
        )
