"""One run at a time; the others wait in the order in which they were started, whoever started them, whoever dies."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.events import State
from lora_studio.jobs import control, identity, queue, runner, view
from lora_studio.jobs import keeper as keeper_process
from lora_studio.jobs import worker as worker_process
from lora_studio.jobs.control import Request
from lora_studio.runs import Run
from lora_studio.ui.pages.train import live
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
    before = three[1].ticket_file.read_text()
    runner.start(three[1])
    assert three[1].ticket_file.read_text() == before and [
        run.name for run in runner.at_work(three[0].folder.parent)
    ] == [
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


def keeper(outputs) -> int | None:
    """The process id of the queue's keeper, if one lives."""
    found = identity.read(runs.queue_lock(outputs))
    return found and found["pid"]


@pytest.mark.fault(80)
def test_one_process_waits_for_all_and_ends_with_the_queue(three):
    """Each waiting run had a process that imported everything and looked three times a second."""
    outputs = three[0].folder.parent
    wait_until(works(three[0]))
    wait_until(lambda: keeper(outputs))
    assert [runner.works(run) for run in three] == [True, False, False]
    assert [runner.waits(run) for run in three] == [False, True, True]
    assert len(runner._children) == 2, "a worker and a keeper"
    for run in three:
        wait_until(works(run))
        enough(run)
    wait_until(lambda: keeper(outputs) is None)
    assert not any(run.ticket_file.exists() for run in three)


@pytest.mark.fault(80)
@pytest.mark.parametrize("who", ["a command", "the page"])
def test_a_killed_keeper_is_replaced_by_whoever_looks(three, who):
    one, two, _ = three
    wait_until(lambda: keeper(one.folder.parent))
    wait_until(works(one))
    os.kill(keeper(one.folder.parent), signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
    wait_until(lambda: keeper(one.folder.parent) is None)
    enough(one)
    if who == "a command":
        next(event for event in runner.follow(two, poll=0.02) if getattr(event, "state", "") == State.RUNNING)
    else:
        wait_until(lambda: live.tick(live.TabState(), live.RunWatcher(one.folder.parent)) and works(two)())


def test_a_worker_whose_place_is_taken_ends_at_once(run):
    """The keeper was killed after it had started a worker and before it noted that: the next one starts another."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        runner.register_worker(run, other.pid)
        assert not runner.claim(run) and worker_process.main(str(run.folder)) == 1
        assert not run.events_file.exists()
        other.communicate(b"")
    assert runner.claim(run) and pid(run) == os.getpid()


def test_a_place_in_the_queue_survives_a_clock_that_is_set_back(three, monkeypatch):
    fourth = runs.create(Settings(data="pictures", name="fourth"), three[0].folder.parent)
    monkeypatch.setattr(runner.time, "time_ns", lambda: 0)
    runner.start(fourth)
    assert [run.name for run in runner.at_work(fourth.folder.parent)] == ["zebra", "ink", "apple", "fourth"]


def test_a_waiting_run_keeps_its_variables_and_no_secret(three, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("HF_TOKEN", "secret")
    fourth = runs.create(Settings(data="pictures", name="fourth"), three[0].folder.parent)
    runner.start(fourth)
    assert json.loads(fourth.ticket_file.read_text())["variables"]["CUDA_VISIBLE_DEVICES"] == "3"
    assert "secret" not in fourth.ticket_file.read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"queued": "x"}', '{"queued": 1, "variables": []}'])
def test_a_damaged_ticket_does_not_stop_the_queue(run, worker, text):
    worker(WAIT_THEN_WORK)
    run.ticket_file.write_text(text)
    enough(run)
    assert runner.alive(run)
    keeper_process.look(run.folder.parent)
    wait_until(lambda: state(run) is State.FINISHED)
    assert not run.ticket_file.exists()


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
scripts = dict(worker={str(script)!r}, keeper={str(script.with_name("keeper.py"))!r})
name = lambda command: scripts[command[2].rpartition(".")[2]]
runner.subprocess.Popen = lambda command, **options: start([command[0], name(command), *command[3:]], **options)
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
