"""Drawing beside a run: in turns. The run learns the same, waits for nobody that is gone, and keeps its memory."""

import os
import subprocess
import sys
import threading
from collections import namedtuple
from contextlib import contextmanager

import psutil
import pytest

from lora_studio import locks, runs
from lora_studio.config.settings import Settings
from lora_studio.errors import MachineError, RunError
from lora_studio.events import Event, Finished, State, StateChanged, StepDone
from lora_studio.jobs import control, runner, turns, worker
from lora_studio.jobs.control import Request
from lora_studio.jobs.turns import RunTurns
from lora_studio.locks import Lock
from lora_studio.training import beside, devices
from lora_studio.training.beside import Drawing
from lora_studio.training.devices import Machine
from tests.jobs.conftest import wait_until
from tests.training.test_loop import assert_same, of, state_tensors, tensors

GB = 2**30
HOLDS = """
import sys, time
from pathlib import Path
from lora_studio.locks import Lock
assert Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(600)
"""


def holder(path):
    """Another process, which holds the lock on ``path`` until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    return process


@pytest.fixture
def run(new_run):
    made = new_run(Settings(data="pictures", name="ink"))
    runner.register_worker(made, os.getpid())
    return made


@contextmanager
def drawing(run, seen: list[Event]):
    """Within it a thread draws, turn after turn. Yields what was seen in its turns: how many events there were when
    one began, and when it ended.
    """
    over, turned = threading.Event(), []

    def draw():
        while not over.is_set():
            with turns.taken(run.folder.parent, over.is_set) as beside_run:
                if beside_run and not over.is_set():
                    before = len(seen)
                    over.wait(0.03)
                    turned.append((before, len(seen)))

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield turned
    finally:
        over.set()
        thread.join()


def test_a_run_learns_the_same_to_the_bit_while_somebody_draws(new_run, settings):
    """Drawing beside a run must not change the run; and each drawing gets a turn in which nothing is computed."""
    settings = settings.changed(dropout=0.3, flip=True, ema=0.9, preview_every=0, validate_every=0)
    alone, shared, seen = new_run(settings), new_run(settings), []
    list(worker.events(alone))
    runner.register_worker(shared, os.getpid())
    with drawing(shared, seen) as turned:
        for event in worker.events(shared):
            seen.append(event)
    assert len(turned) == 3 and all(before == after for before, after in turned), "between 4 steps, and nothing happens"
    assert [event.step for event in of(StepDone, seen)] == [1, 2, 3, 4] and isinstance(seen[-1], Finished)
    assert [event.state for event in of(StateChanged, seen)] == [State.PREPARING, State.RUNNING, State.STOPPING]
    assert_same(tensors(alone.adapter_file), tensors(shared.adapter_file))
    assert_same(state_tensors(alone), state_tensors(shared))


def test_a_paused_run_lets_draw(new_run, settings):
    run, seen = new_run(settings.changed(preview_every=0, validate_every=0)), []
    runner.register_worker(run, os.getpid())
    control.ask(run, Request.PAUSE)
    with drawing(run, seen) as turned:
        for event in worker.events(run):
            seen.append(event)
            if isinstance(event, StateChanged) and event.state is State.PAUSED:
                threading.Thread(
                    target=lambda: (wait_until(lambda: len(turned) > 1), control.withdraw(run, Request.PAUSE))
                ).start()
    assert len(turned) >= 2 + 3 and isinstance(seen[-1], Finished)


def test_whether_a_lock_is_taken(tmp_path):
    path = tmp_path / "a.lock"
    assert not locks.taken(path) and not path.exists()
    lock = Lock(path)
    assert lock.acquire() and locks.taken(path)
    lock.release()
    assert not locks.taken(path)


@pytest.mark.fault(38)
def test_a_killed_drawer_holds_up_nobody(run):
    its, waited = RunTurns(run), threading.Event()
    process = holder(runs.drawing_lock(run.folder.parent))
    with its.offered():
        thread = threading.Thread(target=lambda: (its.wait(lambda: False), waited.set()))
        thread.start()
        wait_until(lambda: turns.waiting(run))
        process.kill()
        process.wait()
        thread.join(120)
        assert waited.is_set() and not turns.waiting(run)


@pytest.mark.fault(38)
def test_a_run_that_is_killed_in_its_wait_does_not_wait_for_ever(run):
    """What it wrote into its lock stays there."""
    run.turns_lock.write_text("waits")
    assert not turns.waiting(run)
    run.worker_file.unlink()
    with turns.taken(run.folder.parent, lambda: False) as found:
        assert found is None


@pytest.mark.fault(38)
def test_a_run_that_was_killed_in_its_wait_and_resumed_does_not_seem_to_wait(run):
    """It would train while somebody draws, and whoever cancels that drawing would wait for ever."""
    run.turns_lock.write_text("waits")
    with RunTurns(run).offered():
        assert not turns.waiting(run)


def test_whoever_looks_at_a_runs_lock_does_not_keep_the_run_from_it(run):
    """A look takes the lock for a moment. Nobody could draw until that run has ended."""
    looks = Lock(run.turns_lock)
    looks.acquire()
    soon = threading.Timer(0.1, looks.release)
    soon.start()
    with RunTurns(run).offered():
        soon.join()
        assert locks.taken(run.turns_lock) and turns.require(run.folder.parent) == run
        its = RunTurns(run)
        assert not its._lock.acquire(), "the run itself holds it"


@pytest.mark.fault(38)
def test_a_run_that_is_suspended_in_its_wait_does_not_hold_up_the_drawer(run, monkeypatch):
    """Its worker got SIGSTOP: it says that it waits, and never goes on."""
    monkeypatch.setattr(turns, "GRACE", 0.05)
    suspended = Lock(run.turns_lock)
    suspended.acquire()
    suspended.note("waits")
    for _ in range(2):
        with turns.taken(run.folder.parent, lambda: False) as found:
            assert found == run
    suspended.release()


def test_a_stop_ends_the_wait_for_a_drawing(run):
    its, drawer = RunTurns(run), Lock(runs.drawing_lock(run.folder.parent))
    drawer.acquire()
    with its.offered():
        its.wait(lambda: True)
    assert drawer.acquire(), "still held"
    drawer.release()


def test_a_drawer_that_hangs_is_waited_for_once(run, monkeypatch):
    """The studio was suspended with Ctrl+Z while it drew."""
    monkeypatch.setattr(turns, "LONGEST", 0.05)
    monkeypatch.setattr(turns, "POLL", 0.01)
    its, drawer, waits = RunTurns(run), Lock(runs.drawing_lock(run.folder.parent)), []
    drawer.acquire()
    monkeypatch.setattr(turns.time, "sleep", lambda _, sleep=turns.time.sleep: (waits.append(1), sleep(0.01)))
    with its.offered():
        its.wait(lambda: False)
        first = len(waits)
        its.wait(lambda: False)
        assert first and len(waits) == first
        drawer.release()
        its.wait(lambda: False)
        drawer.acquire()
        its.wait(lambda: False)
        assert len(waits) > first
    drawer.release()


def test_a_drawing_that_nobody_wants_any_more_leaves_the_queue(run):
    told = []
    with turns.taken(run.folder.parent, lambda: bool(told), lambda: told.append("waits")) as found:
        assert found == run and told == ["waits"]
    assert not locks.taken(runs.drawing_lock(run.folder.parent))


def test_who_has_the_device_alone(run):
    """A run that has not begun its steps, or has ended them, loads and draws itself."""
    outputs = run.folder.parent
    with pytest.raises(RunError, match="while the run ink begins or ends"):
        turns.require(outputs)
    with RunTurns(run).offered():
        assert turns.require(outputs) == run
    run.worker_file.unlink()
    assert turns.require(outputs) is None


Memory = namedtuple("Memory", "total available")


def test_a_drawing_that_does_not_fit_is_refused_with_the_figures(new_run, settings, monkeypatch):
    """It would take the memory that the run needs for its next preview."""
    run = new_run(settings)
    drawing = Drawing("starter", "", (), 0)
    beside.require(run, drawing, held=10 * GB, ours=0)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(total=8 * GB, available=0.42 * GB))
    with pytest.raises(MachineError) as told:
        beside.require(run, drawing, held=10 * GB, ours=0)
    assert told.value.what == (
        "Drawing does not fit beside the run discs: it takes 0.1 GB of the computer's memory, "
        "and the run leaves 0.0 GB."
    )
    assert "Wait for the run's end" in told.value.do
    beside.require(run, drawing, held=10 * GB, ours=GB)  # its model is in memory already


class Gpu:
    """A GPU's memory as PyTorch tells of it: ``free`` of 24 GB, of which ``ours`` are this process's."""

    def __init__(self, free, ours=0.0):
        self.free, self.ours, self.share = free, ours, None

    def mem_get_info(self, _):
        return int(self.free * GB), 24 * GB

    def memory_reserved(self, _):
        return int(self.ours * GB)

    def set_per_process_memory_fraction(self, share, _=None):
        self.share = share


@pytest.mark.parametrize(
    ("free", "ours", "left"),
    [
        (14.0, 0.0, 14 - 2 - 1.2),  # 10 GB are held, some by others: the run may still grow from 6 GB to 8
        (23.0, 0.0, 23 - 7.5 - 1.2),  # it has taken no step yet
        (10.0, 4.0, 14 - 2 - 1.2),  # a model of this process's is among what is held
    ],
)
def test_a_gpu_keeps_what_the_run_may_come_to_take(new_run, settings, monkeypatch, free, ours, left):
    """The run is at 6 GB in its steps and at 8 GB in its previews. It finds its memory whatever the drawing takes: that
    process may not take more than is left.
    """
    gpu = Gpu(free, ours)
    monkeypatch.setattr(beside, "torch", namedtuple("Torch", "cuda xpu")(gpu, gpu))
    monkeypatch.setattr(devices, "choose", lambda *_: _Card(devices.torch.device("cuda"), "fp32"))
    monkeypatch.setattr(beside, "_estimate", lambda *_: namedtuple("E", "peak step")(8 * GB, 6 * GB))
    beside.require(new_run(settings), Drawing("starter", "", (), 0), held=0, ours=0)
    assert gpu.share * 24 == pytest.approx(left, abs=0.01)


class _Card(Machine):
    name, memory = "a card", 24 * GB
