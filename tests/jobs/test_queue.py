"""One run at a time; the others wait in the order in which they were started, whoever started them, whoever dies."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.events import State
from lora_studio.jobs import control, queue, runner, view
from lora_studio.jobs.control import Request
from lora_studio.runs import Run
from tests.jobs.conftest import wait_until
from tests.jobs.test_runner import pid

WAIT_THEN_WORK = """
import os
from lora_studio.jobs import queue
from lora_studio.runs import Run
run = Run(Path(sys.argv[1]))
queue.POLL = 0.02
device = queue.wait(run)
if device is None:
    log.append(StateChanged(state=State.INTERRUPTED))
    sys.exit(1)
with open(run.folder.parent / "order", "a") as order:
    order.write(run.name + "\\n")
log.append(StateChanged(state=State.RUNNING))
while not (run.folder / "enough").exists():
    time.sleep(0.02)
log.append(Finished(adapter="x.safetensors", steps=1, seconds=0.1, final_loss=0.5))
"""


@pytest.fixture
def three(tmp_path, worker):
    """Three runs, started one after the other."""
    worker(WAIT_THEN_WORK)
    made = [
        runs.create(Settings(data="pictures", name=name), tmp_path / "outputs") for name in ("zebra", "ink", "apple")
    ]
    for run in made:
        runner.start(run)
    return made


def state(run):
    return view.fold(run).state


def works(run):
    return lambda: state(run) is State.RUNNING


def enough(run):
    (run.folder / "enough").touch()


def test_who_waits_is_told_for_whom_and_for_how_many(tmp_path, monkeypatch):
    """Page and command each had words of their own for it."""
    line = [Run(tmp_path / name) for name in ("zebra", "ink", "apple", "gold")]
    monkeypatch.setattr(runner, "at_work", lambda _: line)
    assert [queue.waits_for(run) for run in line] == [
        "",
        "zebra to end",
        "zebra to end, and 1 more run before it",
        "zebra to end, and 2 more runs before it",
    ]
    assert queue.waits_for(Run(tmp_path / "nobody")) == ""


def test_runs_train_in_the_order_of_their_start(three):
    one, two, last = three
    wait_until(works(one))
    assert [run.name for run in runner.at_work(one.folder.parent)] == ["zebra", "ink", "apple"]
    assert [state(run) for run in (two, last)] == [State.QUEUED, State.QUEUED]
    assert [[run.name for run in queue.ahead(run)] for run in three] == [[], ["zebra"], ["zebra", "ink"]]
    for now, then in ((one, two), (two, last)):
        enough(now)
        wait_until(works(then))
        assert state(now) is State.FINISHED
    assert (one.folder.parent / "order").read_text().split() == ["zebra", "ink", "apple"]


@pytest.mark.fault(47)
def test_a_waiting_run_that_is_stopped_leaves_the_queue_at_once_and_can_come_back(three):
    one, two, last = three
    wait_until(works(one))
    control.ask(two, Request.STOP)
    control.ask(two, Request.STOP)
    wait_until(lambda: not runner.alive(two))
    seen = view.fold(two)
    assert seen.state is State.INTERRUPTED and seen.left_queue and not runner.alive(two)
    runner.start(two)
    assert state(two) is State.QUEUED and [run.name for run in queue.ahead(two)] == ["zebra", "apple"]


@pytest.mark.fault(47)
def test_starting_a_waiting_run_again_keeps_its_place(three):
    before = pid(three[1])
    runner.start(three[1])
    assert pid(three[1]) == before and [run.name for run in runner.at_work(three[0].folder.parent)] == [
        "zebra",
        "ink",
        "apple",
    ]


@pytest.mark.fault(38)
def test_a_killed_run_gives_the_device_to_the_next(three):
    one, two, _ = three
    wait_until(works(one))
    os.kill(pid(one), signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
    wait_until(works(two))
    runner.reap(one)
    assert state(one) is State.INTERRUPTED and not view.fold(one).left_queue


@pytest.mark.fault(55)
def test_the_queue_continues_without_the_studio_that_started_it(tmp_path, worker, monkeypatch):
    """Killed with the runs it started, or forgotten by the next studio, a queue would be worth little."""
    worker(WAIT_THEN_WORK)
    script = tmp_path / "worker.py"
    made = [runs.create(Settings(data="pictures", name=name), tmp_path / "outputs") for name in ("first", "second")]
    studio = f"""
import subprocess, sys, os, signal
from pathlib import Path
from lora_studio.jobs import runner
from lora_studio.runs import Run
start = subprocess.Popen
runner.subprocess.Popen = lambda command, **options: start([command[0], {str(script)!r}, *command[3:]], **options)
for folder in {[str(run.folder) for run in made]!r}:
    runner.start(Run(Path(folder)))
os.kill(os.getpid(), signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
"""
    monkeypatch.undo()
    subprocess.run(
        [sys.executable, "-c", studio], env={**os.environ, "PYTHONPATH": str(Path(queue.__file__).parents[2])}
    )
    try:
        wait_until(works(made[0]))
        runner.reap(made[1])
        assert [run.name for run in runner.at_work(tmp_path / "outputs")] == ["first", "second"] and state(
            made[1]
        ) is State.QUEUED
        enough(made[0])
        wait_until(works(made[1]))
        enough(made[1])
        assert list(runner.follow(made[1], poll=0.02))[-1].kind == "finished"
    finally:
        for run in made:
            enough(run)
