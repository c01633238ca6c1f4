"""Runs whose worker is a small fake one, since the parent's side must work whatever the worker does."""

import subprocess
import time

import pytest

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.jobs import runner


@pytest.fixture
def run(tmp_path):
    return runs.create(Settings(data="pictures", name="ink"), tmp_path / "outputs")


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Sets the code that workers run in place of ``lora_studio.jobs.worker``; it finds its run's log in ``log``."""
    script, start = tmp_path / "worker.py", subprocess.Popen

    def become(code: str) -> None:
        script.write_text(
            "import sys, time\nfrom pathlib import Path\n"
            "from lora_studio.events import *\nfrom lora_studio.jobs.eventlog import EventLog\n"
            f"log = EventLog(Path(sys.argv[1]) / 'events.jsonl')\n{code}"
        )

    def popen(command: list[str], **options):
        assert command[1:3] == ["-m", "lora_studio.jobs.worker"]
        return start([command[0], str(script), *command[3:]], **options)

    monkeypatch.setattr(runner.subprocess, "Popen", popen)
    return become


@pytest.fixture(autouse=True)
def no_worker_outlives_its_test():
    yield
    for child in runner._children.values():
        child.kill()
        child.wait()
    runner._children.clear()


def wait_until(true, seconds: float = 60.0) -> None:
    """Waits for ``true()``; fails if it does not come."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
