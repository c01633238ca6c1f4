"""The worker itself, its training played: what it leaves in the log, and what it clears away before it begins."""

import os

import pytest

from lora_studio import files, runs
from lora_studio.errors import MachineError
from lora_studio.events import Finished, State, StepDone
from lora_studio.jobs import control, queue, runner, view, worker
from lora_studio.jobs.control import Request
from lora_studio.locks import Lock

DONE = Finished(adapter="ink.safetensors", steps=1, seconds=0.1, final_loss=0.5)
pytestmark = pytest.mark.usefixtures("signals_as_they_were")


@pytest.fixture
def trains(monkeypatch):
    """Sets what the training does in place of the real one."""
    monkeypatch.setattr(queue, "POLL", 0.01)
    return lambda events: monkeypatch.setattr(worker, "events", lambda run, *_: events())


def test_a_worker_enrols_itself_holds_the_device_and_tells_its_end(run, trains):
    """A parent that died before it noted the worker must not leave it running unknown to all."""
    seen = []

    def training():
        seen.append((runner.alive(run), Lock(runs.device_lock(run.folder.parent)).acquire()))
        yield DONE

    trains(training)
    assert worker.main(str(run.folder)) == 0
    assert seen == [(True, False)] and view.fold(run).state is State.FINISHED


@pytest.mark.fault(80)
def test_a_worker_sees_to_it_that_the_queue_continues_after_it(run, trains, monkeypatch):
    """The queue's keeper was killed while nobody looked."""
    kept = []
    monkeypatch.setattr(runner, "keep", kept.append)
    trains(lambda: iter([DONE]))
    worker.main(str(run.folder))
    assert kept == [run.folder.parent] * 2


@pytest.mark.fault(43)
def test_what_a_killed_worker_left_half_written_is_swept_and_what_is_held_is_not(run, trains):
    left = [
        run.folder / "settings.toml.99999999.partial",
        run.checkpoints / "step-5.99999999.partial",
        run.previews / f"step-1-0.png.{os.getpid()}.partial",
    ]
    left[0].touch(), left[1].mkdir(), left[2].touch()
    held = run.folder / f"export.safetensors.{os.getppid()}.partial"
    held.touch()
    trains(lambda: iter([DONE]))
    worker.main(str(run.folder))
    assert [path.name for path in run.folder.rglob("*" + files.PARTIAL)] == [held.name]


@pytest.mark.fault(47)
def test_a_worker_stopped_in_the_queue_ends_without_training(run, trains):
    runner.register_worker(run, os.getpid())
    control.ask(run, Request.STOP)
    trains(lambda: pytest.fail("it trained"))
    assert worker.main(str(run.folder)) == 1
    assert view.fold(run).state is State.INTERRUPTED and not control.asked(run, Request.STOP)


@pytest.mark.fault(36, 49)
def test_a_problem_that_the_user_can_fix_reaches_the_log_with_what_would_fix_it(run, trains):
    def training():
        yield StepDone(step=1, loss=0.5, learning_rate=1e-4)
        raise MachineError(
            "The memory is full.", where="batch", do="Set batch to 1.", details={"changes": {"batch": 1}}
        )

    trains(training)
    assert worker.main(str(run.folder)) == 1
    failed = view.fold(run).failed
    assert (failed.what, failed.changes, failed.ours) == ("The memory is full.", {"batch": 1}, False)
