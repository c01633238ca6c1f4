"""What a long queue costs: ``python -m tests.benchmarks.long_queue``. The processes that wait, their processor time and
memory, while fifty runs stand behind one that trains.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import psutil

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.jobs import control, identity, runner
from lora_studio.jobs.control import Request


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=50)
    options.add_argument("--seconds", type=float, default=20.0)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="lora-studio-") as folder:
        waiting = _queue(Path(folder), given.runs)
        cores, memory, processes = _measured(given.seconds)
        print(f"{len(waiting)} runs wait: {processes} process(es), {cores:.4f} cores, {memory / 1e6:.1f} MB")
        print(f"aim: 0.05 cores {'met' if cores < 0.05 else 'MISSED'}, 100 MB {'met' if memory < 1e8 else 'MISSED'}")
        _end(Path(folder), waiting)


def _queue(outputs: Path, count: int) -> list[runs.Run]:
    """Runs that wait behind one whose worker this process plays."""
    first = runs.create(Settings(name="first", data="pictures"), outputs)
    runner.register_worker(first, os.getpid())
    waiting = [runs.create(Settings(name=f"run-{number}", data="pictures"), outputs) for number in range(count)]
    for run in waiting:
        runner.start(run)
    return waiting


def _measured(seconds: float) -> tuple[float, float, int]:
    """Cores and bytes of all processes that this one started, and their number, once they have settled."""
    time.sleep(3)
    children = psutil.Process().children(recursive=True)
    before = [_seconds(child) for child in children]
    time.sleep(seconds)
    after = [_seconds(child) for child in children]
    spent = sum(late - early for late, early in zip(after, before, strict=True))
    return spent / seconds, sum(child.memory_full_info().rss for child in children), len(children)


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _end(outputs: Path, waiting: list[runs.Run]) -> None:
    """All leave the queue, and with them its keeper."""
    for run in waiting:
        control.ask(run, Request.STOP)
    while any(map(runner.waits, waiting)) or identity.read(runs.queue_lock(outputs)):
        runner.collect()
        time.sleep(0.1)


if __name__ == "__main__":
    main()
