"""Workers: started once, known to live or to be dead, never mistaken for a stranger's process."""

import json
import os
import shutil
import signal
import sys
import threading
import time

import psutil
import pytest

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.errors import MachineError
from lora_studio.events import Finished, State, StateChanged, StepDone
from lora_studio.jobs import control, runner, view
from lora_studio.jobs.control import Request
from tests.jobs.conftest import wait_until

SLEEP = "log.append(StateChanged(state=State.RUNNING))\ntime.sleep(60)\n"
FINISH = "log.append(Finished(adapter='ink.safetensors', steps=3, seconds=0.1, final_loss=0.5))\n"


def pid(run) -> int:
    return json.loads(run.worker_file.read_text())["pid"]


def test_a_run_that_was_never_started_is_not_alive(run):
    assert not runner.alive(run)
    runner.reap(run)
    assert view.fold(run).state is State.QUEUED


@pytest.mark.fault(47)
def test_starting_twice_starts_once(run, worker):
    """Fault 47: two workers on one folder would write over each other."""
    worker(SLEEP)
    runner.start(run)
    first = pid(run)
    runner.start(run)
    assert runner.alive(run) and pid(run) == first


@pytest.mark.fault(47)
def test_two_processes_that_start_a_run_at_the_same_moment_start_it_once(run, worker):
    """The page and a terminal: each finds no worker, and each starts one."""
    worker(SLEEP)
    (start := threading.Thread(target=runner.start, args=[run])).start()
    runner.start(run)
    start.join()
    assert len(runner._children) == 1 and runner.alive(run)


@pytest.mark.fault(56)
def test_a_run_folder_that_is_gone_is_named(run):
    shutil.rmtree(run.folder)
    with pytest.raises(MachineError, match="cannot be started: No such file") as caught:
        runner.start(run)
    assert "ink" in caught.value.where


def test_following_yields_every_event_until_the_end(run, worker):
    worker(
        "for n in range(1, 4):\n    log.append(StepDone(step=n, loss=0.5, learning_rate=1e-4))\n    time.sleep(0.05)\n"
        + FINISH
    )
    runner.start(run)
    events = list(runner.follow(run, poll=0.02))
    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2, 3]
    assert isinstance(events[-1], Finished)


@pytest.mark.fault(38)
def test_a_killed_worker_is_seen(run, worker):
    """Fault 38: the log of a worker that got SIGKILL just ends; the run must not look as if it ran on."""
    worker(SLEEP)
    runner.start(run)
    wait_until(lambda: view.fold(run).state is State.RUNNING)
    os.kill(pid(run), signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
    events = list(runner.follow(run, poll=0.02))
    assert events[-1] == StateChanged(state=State.INTERRUPTED, at=events[-1].at)
    assert not runner.alive(run)


def test_a_vanished_worker_is_noted_once(run, worker):
    worker("")
    runner.start(run)
    wait_until(lambda: not runner.alive(run))
    runner.reap(run)
    size = run.events_file.stat().st_size
    runner.reap(run)
    assert run.events_file.stat().st_size == size and view.fold(run).state is State.INTERRUPTED


def test_a_finished_run_is_never_called_interrupted(run, worker):
    worker(FINISH)
    runner.start(run)
    wait_until(lambda: not runner.alive(run))
    runner.reap(run)
    assert view.fold(run).state is State.FINISHED


@pytest.mark.fault(48)
def test_a_process_number_that_another_program_got_is_not_our_worker(run):
    """Fault 48: after a reboot the number may belong to anything; the times of the start tell."""
    mine = psutil.Process()
    run.worker_file.write_text(json.dumps({"pid": mine.pid, "started": mine.create_time()}))
    assert runner.alive(run)
    run.worker_file.write_text(json.dumps({"pid": mine.pid, "started": mine.create_time() - 3600}))
    assert not runner.alive(run)


@pytest.mark.fault(81)
@pytest.mark.parametrize("seconds", [-3600, -2, 2, 3600])
def test_a_clock_that_is_set_leaves_a_worker_alive(run, monkeypatch, seconds):
    """On Linux the time of a process's start is computed from the time of day: a clock that was set by more than a
    second made every worker a stranger, and the page called its run interrupted.
    """
    runner.register_worker(run, os.getpid())
    monkeypatch.setattr(psutil.Process, "create_time", lambda _, now=time.time(): now + seconds)
    assert runner.alive(run) is sys.platform.startswith("linux")


@pytest.mark.fault(48, 81)
def test_a_process_of_another_boot_is_not_our_worker(run):
    runner.register_worker(run, os.getpid())
    noted = json.loads(run.worker_file.read_text())
    for change in ({"boot": "another"}, {"tick": 1}) if "boot" in noted else ():
        run.worker_file.write_text(json.dumps(noted | change))
        assert not runner.alive(run)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "started": 0}', '{"pid": -1, "started": 0}', "null"]
)
def test_a_damaged_worker_file_means_no_worker(run, content):
    run.worker_file.write_text(content)
    assert not runner.alive(run)


def test_old_requests_do_not_stop_a_new_worker(run, worker):
    worker(SLEEP)
    control.ask(run, Request.STOP)
    runner.start(run)
    assert not control.asked(run, Request.STOP)


def test_what_the_worker_prints_lies_in_its_log(run, worker):
    worker("print('a library said this')\n" + FINISH)
    runner.start(run)
    list(runner.follow(run, poll=0.02))
    assert "a library said this" in run.log_file.read_text()


@pytest.mark.fault(19)
def test_a_folder_name_with_spaces_quotes_and_emoji_works(tmp_path, worker):
    """Argument lists, never a shell."""
    worker(FINISH)
    run = runs.create(Settings(data="pictures", name="ink"), tmp_path / "out; rm 'x' \"y\" 🎨")
    runner.start(run)
    assert isinstance(list(runner.follow(run, poll=0.02))[-1], Finished)
