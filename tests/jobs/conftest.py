"""Runs whose worker is a small fake one, since the parent's side must work whatever the worker does."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.jobs import identity, runner

KEEPER = """
import sys
from pathlib import Path
from lora_studio.jobs import keeper, runner
start = runner.subprocess.Popen
runner.subprocess.Popen = lambda command, **options: start([command[0], {script!r}, *command[3:]], **options)
keeper.POLL = 0.05
keeper.main(Path(sys.argv[1]))
"""


@pytest.fixture
def run(tmp_path):
    return runs.create(Settings(data="pictures", name="ink"), tmp_path / "outputs")


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Sets the code that workers run in place of ``lora_studio.jobs.worker``; it finds its run's log in ``log``. The
    queue's keeper starts the same.
    """
    script, start = tmp_path / "worker.py", subprocess.Popen
    keeper = tmp_path / "keeper.py"
    keeper.write_text(KEEPER.format(script=str(script)))

    def become(code: str) -> None:
        script.write_text(
            "import sys, time\nfrom pathlib import Path\n"
            "from lora_studio.events import *\nfrom lora_studio.jobs.eventlog import EventLog\n"
            f"log = EventLog(Path(sys.argv[1]) / 'events.jsonl')\n{code}"
        )

    def popen(command: list[str], **options):
        scripts = {"lora_studio.jobs.worker": script, "lora_studio.jobs.keeper": keeper}
        assert command[1] == "-m"
        return start([command[0], str(scripts[command[2]]), *command[3:]], **options)

    monkeypatch.setattr(runner.subprocess, "Popen", popen)
    return become


@pytest.fixture(autouse=True)
def no_worker_outlives_its_test(tmp_path):
    """Neither those that a test started, nor those that the queue's keeper did."""
    yield
    for child in runner._children.values():
        child.kill()
        child.wait()
    runner._children.clear()
    notes: list[Path] = []
    with suppress(OSError):  # some tests make the disk refuse
        notes = [*tmp_path.glob("outputs/*/worker.json")]
    for note in notes:
        if (worker := identity.read(note)) and worker["pid"] != os.getpid():
            os.kill(worker["pid"], signal.SIGKILL if os.name != "nt" else signal.SIGTERM)


def wait_until(true, seconds: float = 300.0) -> None:
    """Waits for ``true()``; fails if it does not come."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def signals_as_they_were():
    """What a worker does with signals ends with the test."""
    kept = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    yield
    for one, handler in kept.items():
        signal.signal(one, handler)
