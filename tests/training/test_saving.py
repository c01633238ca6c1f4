"""Saving while a run trains: what fails is told once, tried again at the next interval, and never ends the run."""

import errno
import itertools
import math
import os

import pytest
import torch

from lora_studio import adapters, files, runs
from lora_studio.config.settings import Settings
from lora_studio.errors import AdapterError, MachineError, RunError, StudioError
from lora_studio.events import CheckpointSaved, Finished, RolledBack, State, StateChanged, StepDone, Warned
from lora_studio.runs import checkpoints
from lora_studio.training import checkpoint, export, saving
from lora_studio.training.distributed import World
from lora_studio.training.leader import Leader
from lora_studio.training.loop import train
from lora_studio.training.recovery import Recovery
from lora_studio.training.requests import Requests
from lora_studio.training.saving import Saver
from lora_studio.training.train_step import Diverged, StepResult
from tests.training.test_stepper import prepared


@pytest.fixture(scope="module")
def plain(tiny_base, pictures) -> Settings:
    return Settings(
        data=str(pictures),
        base=str(tiny_base),
        resolution=64,
        steps=60,
        rank=2,
        alpha=2,
        device="cpu",
        preview_prompts=["a disc"],
        preview_steps=1,
        preview_every=0,
        validate_every=0,
        validation_share=0.2,
        max_upscale=1,
        checkpoint_every=0,
        checkpoint_minutes=1,
        keep_checkpoints=2,
        keep_every=0,
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory, plain):
    """What takes long: one session for all of these tests."""
    return prepared(runs.create(plain, tmp_path_factory.mktemp("shared")))


@pytest.fixture
def session(shared, new_run, plain, monkeypatch):
    """``shared`` in a run of its own, whose adapter takes no time to write."""
    shared.run, shared.settings, shared.step = new_run(plain), plain, 0
    shared.saved_step, shared.abandoned, shared.rate_factor, shared.rollbacks = None, [], 1.0, 0
    monkeypatch.setattr(export, "write", lambda session, path: files.write(path, b"adapter") or 0.0)
    return shared


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when the test or a sleep says so."""
    now = [0.0]
    monkeypatch.setattr(saving.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(saving.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def failing(error: Exception):
    def act(*_, **__):
        raise error

    return act


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def taken(session, saver, clock, steps) -> tuple[int, list]:
    """How often a save was tried over ``steps`` of ten seconds each, and what was told."""
    tries, told = 0, []
    for session.step in steps:
        clock[0] += 10
        if saver.due():
            tries += 1
            told += saver.save()
    return tries, told


ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
)


@pytest.mark.fault(69)
@pytest.mark.parametrize(
    ("place", "error", "words"),
    [
        ("_fill", PermissionError(errno.EACCES, "Permission denied"), "could not be saved: Permission denied"),
        ("_fill", OSError(errno.EROFS, "Read-only file system"), "could not be saved: Read-only file system"),
        ("_fill", OSError(errno.EIO, "Input/output error"), "could not be saved: Input/output error"),
        ("_fill", MemoryError(), "not enough memory"),
        ("_fill", RuntimeError(ALLOCATOR), "not enough memory"),
        ("complete", None, "does not read back"),
    ],
)
def test_a_save_that_fails_is_reported_once_and_tried_again_at_the_next_interval(
    session, clock, monkeypatch, place, error, words
):
    """It was tried at every step, with a warning each: 55 in 60 steps."""
    saver = Saver(session, Requests())
    with monkeypatch.context() as broken:
        broken.setattr(checkpoint, place, failing(error) if error else lambda folder: False)
        tries, told = taken(session, saver, clock, range(1, 61))
    assert tries == 10 and len(told) == 1 and words in told[0].what and told[0].do
    with monkeypatch.context() as broken:
        broken.setattr(checkpoint, "_fill", failing(OSError(errno.ENODEV, "No such device")))
        _, told = taken(session, saver, clock, range(61, 73))
    assert len(told) == 1 and "No such device" in told[0].what, "another cause is told"
    _, told = taken(session, saver, clock, range(73, 79))
    assert [type(event) for event in told] == [CheckpointSaved] and checkpoints.latest(session.run)
    assert not [*session.run.folder.rglob(f"*{files.PARTIAL}")]


@pytest.mark.fault(70)
def test_an_old_state_that_cannot_be_removed_costs_nothing_but_its_room(session, monkeypatch):
    """On Windows one that another program has open cannot be: the run ended, with its new state saved."""
    saver, remove, told = Saver(session, Requests()), files.remove, []

    def refuse(folder):
        if folder == session.run.checkpoint(2):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        remove(folder)

    with monkeypatch.context() as held:
        held.setattr(files, "remove", refuse)
        for session.step in range(1, 7):
            told += saver.save()
    assert [event.step for event in of(CheckpointSaved, told)] == [1, 2, 3, 4, 5, 6]
    (warned,) = of(Warned, told)
    assert "could not be removed: Permission denied" in warned.what and "step-2" in warned.where
    assert [saved.step for saved in checkpoints.listed(session.run)] == [2, 5, 6], "the others were removed"
    session.step = 7
    assert not of(Warned, saver.save())
    assert [saved.step for saved in checkpoints.listed(session.run)] == [6, 7]


@pytest.mark.fault(70)
def test_old_states_that_cannot_be_listed_do_not_end_the_run(session, monkeypatch):
    monkeypatch.setattr(checkpoints, "prune", failing(RunError("The folder cannot be read.", do="Check it.")))
    session.step = 1
    assert [type(event) for event in Saver(session, Requests()).save()] == [CheckpointSaved, Warned]


@pytest.mark.fault(71)
@pytest.mark.parametrize(
    "error",
    [
        AdapterError("The file holds 1 of 2 modules after writing.", do="Check the disk."),
        OSError(errno.EIO, "Input/output error", "base.safetensors"),
        RuntimeError("linalg.svd did not converge"),
    ],
)
def test_a_state_whose_adapter_cannot_be_written_is_saved_without_it(session, monkeypatch, error):
    """What was learned must not depend on a file that can be made from it."""
    saver = Saver(session, Requests())
    session.step = 3
    monkeypatch.setattr(export, "write", failing(error))
    saved, warned = saver.save()
    assert isinstance(saved, CheckpointSaved) and "without its adapter" in warned.what
    assert checkpoint.load(checkpoints.latest(session.run))["step"] == 3
    session.step = 4
    assert not of(Warned, saver.save()), "it is told once"


class Stopping(Requests):
    """Asks to stop, and counts how often the run waited."""

    def __init__(self):
        self.stops, self.waits = 0, 0

    def pause(self):
        self.waits += 1
        self.stops = 1
        return True

    def paused(self):
        return True

    def stop(self):
        return self.stops > 0

    def take_stop(self):
        self.stops = 0
        return True


@pytest.mark.fault(41)
def test_where_the_disk_is_full_to_the_end_one_more_stop_gives_up_state_and_adapter(session, clock, monkeypatch):
    requests = Stopping()
    saver = Saver(session, requests)
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(checkpoint, "_fill", failing(full))
    monkeypatch.setattr(export, "write", failing(full))
    monkeypatch.setattr(files, "room", lambda path: 0)
    session.step = 5
    list(saver.save(State.STOPPING))
    with pytest.raises(files.DiskFull, match="adapter could not be written") as raised:
        list(saver.export())
    assert requests.waits == 1 and "is saved" not in raised.value.do


@pytest.mark.fault(41)
def test_a_full_quota_is_tried_again_every_minute_and_reported_once(session, clock, monkeypatch):
    """The disk says that it has room: that was taken for the end of the wait, five times a second."""
    fill, tries = checkpoint._fill, []

    def refuse(*arguments):
        tries.append(clock[0])
        if len(tries) < 4:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        fill(*arguments)

    monkeypatch.setattr(checkpoint, "_fill", refuse)
    monkeypatch.setattr(files, "room", lambda path: 10**15)
    session.step = 5
    told = list(Saver(session, Requests()).save())
    assert len(of(Warned, told)) == 1 and isinstance(told[-1], CheckpointSaved)
    assert all(later - earlier >= saving.RETRY for earlier, later in itertools.pairwise(tries))
    states = [event.state for event in of(StateChanged, told)]
    assert states == [State.PAUSED, State.RUNNING] * 3


# Going back to a state that was saved


def diverged() -> Diverged:
    return Diverged("The loss of step 31 is NaN or infinite.", do="Train with a lower learning rate.")


def result(norm: float) -> StepResult:
    return StepResult(0.5, norm, 1e-4)


@pytest.mark.fault(72)
def test_each_further_try_goes_back_further_and_what_it_overtakes_is_removed(session, plain):
    """The newest state may be what diverges: the run went back to it three times, then gave up."""
    session.settings = plain.changed(keep_checkpoints=9)
    saver, recovery, leader = Saver(session, Requests()), Recovery(session), Leader(World())
    for session.step in (10, 20, 30):
        list(saver.save())

    def back() -> tuple[int, float]:
        session.step = 30
        event = recovery.roll_back(leader, diverged())
        assert isinstance(event, RolledBack) and event.failed_step == 31
        return session.step, session.rate_factor

    assert [back(), back(), back()] == [(30, 0.5), (20, 0.25), (10, 0.125)]
    left = {one.step: checkpoints.abandoned(one.folder) for one in checkpoints.listed(session.run)}
    assert left == {10: False, 20: True, 30: True}
    with pytest.raises(Diverged):
        back()
    session.step = 15
    list(saver.save())
    assert [saved.step for saved in checkpoints.listed(session.run)] == [10, 15]


@pytest.mark.fault(72)
def test_states_that_were_saved_just_before_it_diverged_again_are_passed_over(session, plain):
    session.settings = plain.changed(keep_checkpoints=9)
    saver, recovery, leader = Saver(session, Requests()), Recovery(session), Leader(World())
    for session.step in (1, 2):
        list(saver.save())
    recovery.roll_back(leader, diverged())
    assert session.step == 2
    for session.step in (3, 4):
        list(saver.save())
    recovery.roll_back(leader, diverged())
    assert session.step == 1


@pytest.mark.fault(72)
def test_a_run_that_got_further_goes_back_to_its_newest_state(session, plain):
    session.settings = plain.changed(keep_checkpoints=9)
    saver, recovery, leader = Saver(session, Requests()), Recovery(session), Leader(World())
    for session.step in (10, 20):
        list(saver.save())
    recovery.roll_back(leader, diverged())
    for session.step in (30, 40):
        list(saver.save())
    recovery.roll_back(leader, diverged())
    assert session.step == 40


@pytest.mark.fault(72)
def test_a_gradient_far_above_its_usual_norm_has_exploded(session):
    """Fast growth over many steps, or fp16's infinite gradients, have not."""
    recovery = Recovery(session)
    for step in range(40):
        recovery.watch(result(1.05**step))
        recovery.watch(result(math.inf))
        assert not recovery.exploded
    recovery.watch(result(3000.0))
    assert recovery.exploded
    recovery.watch(result(5.0))
    assert not recovery.exploded


@pytest.mark.fault(72)
def test_no_state_is_saved_while_the_gradient_has_exploded(new_run, settings, monkeypatch):
    monkeypatch.setattr(Recovery, "watch", lambda self, result: setattr(self, "exploded", self.session.step == 2))
    quiet = settings.changed(preview_every=0, validate_every=0, checkpoint_every=1, steps=3)
    seen = list(train(new_run(quiet), quiet))
    assert [event.step for event in of(CheckpointSaved, seen)] == [1, 3]


@pytest.mark.fault(72)
def test_the_rate_that_is_advised_is_lower_than_what_failed(session):
    from lora_studio.training.train_step import _require_finite

    with pytest.raises(
        Diverged, match="before anything was learned. .*Choose another copy of the base model"
    ) as raised:
        _require_finite(session, math.nan, 1.0)
    with pytest.raises(Diverged, match="before anything"):  # at once: a lower rate does not change the first loss
        Recovery(session).roll_back(Leader(World()), raised.value)
    assert session.rollbacks == 0
    session.rate_factor, session.step = 0.125, 1
    with pytest.raises(Diverged, match="is NaN or infinite") as raised:
        _require_finite(session, math.nan, 1.0)
    advised = float(raised.value.do.partition("for example ")[2].split()[0].rstrip("."))
    assert 0 < advised < 0.125 * session.settings.optimizer.learning_rate


# The whole loop


@pytest.mark.fault(71)
@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (AdapterError("The file holds 1 of 2 modules after writing.", do="Check it."), StudioError, "holds 1 of 2"),
        (PermissionError(errno.EACCES, "Permission denied"), MachineError, "adapter could not be written: Permission"),
        (RuntimeError("linalg.svd did not converge"), RuntimeError, "did not converge"),
    ],
)
def test_an_export_that_fails_at_the_end_leaves_the_state_which_a_resume_exports(
    new_run, settings, monkeypatch, error, kind, words
):
    """The adapter came first: whatever kept it from being written cost all steps since the last state."""
    run, write, seen = new_run(settings.changed(preview_every=0, validate_every=0, steps=2)), export.write, []

    def refuse(session, path):
        return failing(error)() if path == run.adapter_file else write(session, path)

    with monkeypatch.context() as broken:
        broken.setattr(export, "write", refuse)
        with pytest.raises(kind, match=words) as raised:
            for event in train(run, run.settings()):
                seen.append(event)
    assert isinstance(seen[-1], CheckpointSaved) and checkpoints.latest(run) == run.checkpoint(2)
    assert not run.adapter_file.exists()
    if isinstance(raised.value, StudioError):
        assert "The state of step 2 is saved: resume the run to write the adapter." in raised.value.do
    resumed = list(train(run, run.settings()))
    assert isinstance(resumed[-1], Finished) and not of(StepDone, resumed)
    made, kept = (adapters.read(path).factors for path in (run.adapter_file, run.checkpoint(2) / "adapter.safetensors"))
    assert all(torch.equal(made[name].up, kept[name].up) for name in made)


def test_a_request_to_save_is_answered_while_other_saves_fail(session, clock, monkeypatch):
    """And puts off the next automatic one."""
    saver = Saver(session, Requests())
    monkeypatch.setattr(checkpoint, "_fill", failing(PermissionError(errno.EACCES, os.strerror(errno.EACCES))))
    clock[0] += 59
    session.step = 1
    assert len(list(saver.save())) == 1
    clock[0] += 30
    assert not saver.due()
    with pytest.raises(RunError):
        checkpoints.find(session.run, 1)


# Looks


def looks(run) -> dict[int, bytes]:
    return {int(path.parent.name[5:]): path.read_bytes() for path in run.evaluation.glob("step-*/adapter.safetensors")}


def kept_at(session, saver, *steps):
    for session.step in steps:
        assert list(saver.keep_look()) == []


def test_the_latest_looks_are_kept(session, plain):
    session.settings = plain.changed(keep_previewed=2)
    kept_at(session, Saver(session, Requests()), 10, 20, 30)
    assert looks(session.run) == {20: b"adapter", 30: b"adapter"}


def test_a_look_that_was_judged_stays(session, plain):
    session.settings = plain.changed(keep_previewed=1)
    saver = Saver(session, Requests())
    kept_at(session, saver, 10)
    (session.run.judged_adapter(10).with_name("judged.json")).write_text("{}")
    kept_at(session, saver, 20, 30)
    assert sorted(looks(session.run)) == [10, 30]


def test_looks_of_steps_that_are_taken_back_go(session, monkeypatch):
    saver = Saver(session, Requests())
    kept_at(session, saver, 10, 20, 30)
    (session.run.judged_adapter(10).with_name("judged.json")).write_text("{}")
    monkeypatch.setattr(export, "write", lambda session, path: files.write(path, b"12345678another") or 0.0)
    kept_at(session, saver, 10)  # after a rollback to a step before
    assert looks(session.run) == {10: b"12345678another"}
    assert not session.run.judged_adapter(10).with_name("judged.json").exists(), "it was of the other adapter"


def test_without_looks_nothing_is_kept(session, plain):
    session.settings = plain.changed(keep_previewed=0)
    kept_at(session, Saver(session, Requests()), 10)
    assert looks(session.run) == {}


def test_a_look_that_cannot_be_kept_is_told_once(session, monkeypatch):
    monkeypatch.setattr(export, "write", failing(OSError(errno.EACCES, "Permission denied")))
    saver, told = Saver(session, Requests()), []
    for session.step in (10, 20):
        told += saver.keep_look()
    assert [type(event) for event in told] == [Warned]
    assert told[0].what.startswith("The adapter of step 10 could not be kept with its previews")
    assert looks(session.run) == {} and not list(session.run.evaluation.rglob("*.partial"))
