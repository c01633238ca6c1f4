"""Starting workers and knowing whether they live. The parent's side: imports no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from lora_studio import files, runs
from lora_studio.errors import RunError
from lora_studio.events import State, StateChanged
from lora_studio.jobs import control, eventlog, view
from lora_studio.runs import Run

_ROOT = Path(__file__).resolve().parents[2]
_children: dict[int, subprocess.Popen] = {}


def start(run: Run) -> None:
    """Starts the run's worker in a process of its own, which outlives this one. Starting twice starts once.

    Raises:
        RunError: another run of the same outputs folder is at work.
    """
    if alive(run):
        return
    if other := active(run.folder.parent):
        raise RunError(f"The run {other.name} is still at work.", where=run.name, do="Let it finish, or stop it, then start this one.")
    control.clear(run)
    run.worker_file.unlink(missing_ok=True)  # an earlier worker's, which would pass for a vanished one until the new one is noted
    eventlog.EventLog(run.events_file).append(StateChanged(state=State.QUEUED))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")])), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow a CPU run many times over beside a busy browser
    detached = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS} if os.name == "nt" else {"start_new_session": True}
    with open(run.log_file, "ab") as log:
        child = subprocess.Popen([sys.executable, "-m", "lora_studio.jobs.worker", str(run.folder)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, **detached)
    _children[child.pid] = child
    files.write(run.worker_file, json.dumps({"pid": child.pid, "started": psutil.Process(child.pid).create_time()}))


def alive(run: Run) -> bool:
    """Whether the run's worker is at work: its process exists and began when the worker did (a process id is used again)."""
    try:
        worker = json.loads(run.worker_file.read_text())
        process = psutil.Process(worker["pid"])
        same = abs(process.create_time() - worker["started"]) < 1.0
        return same and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except (FileNotFoundError, ValueError, KeyError, TypeError, psutil.Error):
        return False


def reap(run: Run) -> None:
    """Notes in the log of a run whose worker vanished that it was interrupted."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            del _children[pid]
    if alive(run):
        return
    seen = view.fold(run)
    if not seen.state.ended and run.worker_file.exists():
        eventlog.EventLog(run.events_file).append(StateChanged(state=State.INTERRUPTED))


def active(outputs: Path = runs.OUTPUTS) -> Run | None:
    """The run whose worker is at work, if any."""
    return next((run for run in runs.existing(outputs) if alive(run)), None)


def follow(run: Run, poll: float = 0.2):
    """Yields the run's events from the first, until the run has ended."""
    offset = 0
    while True:
        running = alive(run)
        found, offset = eventlog.read(run.events_file, offset)
        yield from found
        if not running and not found:
            reap(run)
            yield from eventlog.read(run.events_file, offset)[0]
            return
        if not found:
            time.sleep(poll)
