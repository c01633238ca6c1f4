"""A process that has its libraries imported and waits for the page's next run, which then begins seconds sooner. The
studio's side: imports no torch.

``want`` starts it, once ``enable`` was called: by the studio, and nothing else. The process ends by itself when nobody
wanted it for minutes, when something is at work, when memory is short, and when its input closes, as it does when the
studio ends or is killed (``warm_worker``). To hand a run over, its folder goes out as a line; the process answers with
a line, and is the run's worker from then on. Where that fails, the run gets a worker of its own.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil

from lora_studio import files, runs
from lora_studio.jobs import environment
from lora_studio.runs import Run

LEAST = 6 * 2**30
"""Bytes of free memory below which there is none: it takes about one, and a run several."""
PATIENCE = 3.0
"""Seconds within which it answers."""
SWITCH = "LORA_STUDIO_WARM"
"""Environment variable; 0 switches it off."""
TAKEN = b"taken\n"

_lock = threading.Lock()
_outputs: Path | None = None
_process: subprocess.Popen | None = None


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
        if _process is None or _process.poll() is not None:
            with suppress(OSError):
                _process = _started(_outputs)
        elif _process.stdin:
            with suppress(OSError):  # it has just ended
                _process.stdin.write(b"\n")
                _process.stdin.flush()


def hand_over(run: Run) -> subprocess.Popen | None:
    """The process, which is the run's worker from now on; None where there is none."""
    global _process
    with _lock:
        if run.folder.parent != _outputs:
            return None
        process, _process = _process, None
    if process is None or process.poll() is not None:
        return None
    assert process.stdin is not None and process.stdout is not None, "pipes"
    with process.stdin, process.stdout:
        with suppress(OSError):  # it has just ended: the run gets a worker of its own
            process.stdin.write(os.fsencode(run.folder) + b"\n")
            process.stdin.flush()
            if _answer(process) == TAKEN:
                return process
        process.kill()
        process.wait()
    return None


def close() -> None:
    """Ends the process, if there is one."""
    global _process
    with _lock:
        process, _process = _process, None
    if process and process.stdin:
        with suppress(OSError):
            process.stdin.close()


def _started(outputs: Path) -> subprocess.Popen:
    log = runs.cache_folder(outputs) / "warm.log"
    files.make_folder(log.parent)
    with open(log, "wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "lora_studio.jobs.warm_worker", str(outputs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment.environment(),
            **environment.DETACHED,
        )


def _answer(process: subprocess.Popen) -> bytes:
    """Its next line; empty where none comes in time."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    assert process.stdout is not None, "a pipe"
    threading.Thread(target=lambda read=process.stdout.readline: lines.put(read()), daemon=True).start()
    try:
        return lines.get(timeout=PATIENCE)
    except queue.Empty:
        return b""
