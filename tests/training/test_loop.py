"""The real loop on a tiny model: what it says, what it leaves, that it repeats and resumes."""

import math
import shutil

import pytest
import torch

from lora_studio import adapters, events, files
from lora_studio.adapters import recipe
from lora_studio.errors import DatasetError, MachineError, RunError
from lora_studio.events import (
    CheckpointSaved,
    Finished,
    Preparing,
    PreviewReady,
    RolledBack,
    Started,
    State,
    StateChanged,
    StepDone,
    Validated,
    Warned,
)
from lora_studio.jobs import control, worker
from lora_studio.jobs.control import Request
from lora_studio.models import Base
from lora_studio.runs import checkpoints
from lora_studio.training import checkpoint, export, leader, saving
from lora_studio.training.batches import Batches
from lora_studio.training.loop import train
from lora_studio.training.requests import Requests

QUIET = {"preview_every": 0, "validate_every": 0}


def collect(run, requests=None):
    return list(train(run, run.settings(), requests))


def of(kind, events_):
    return [event for event in events_ if isinstance(event, kind)]


def tensors(path):
    return {
        f"{name}.{part}": getattr(factors, part)
        for name, factors in adapters.read(path).factors.items()
        for part in ("down", "up")
    }


def state_tensors(run):
    """Every tensor of the newest state: weights, moments, averages, counts."""
    found = {}
    checkpoint.flatten(checkpoint.load(checkpoints.latest(run)), found)
    return found


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_a_run_from_folder_to_adapter(new_run, settings):
    """Every promise of a run: events in order and in their JSON form, previews and bases as files, a kohya file with
    the recipe.
    """
    run = new_run(settings.changed(clip_skip=2))
    seen = collect(run)
    assert [events.parse(event.line()) for event in seen] == seen
    assert [event.state for event in of(StateChanged, seen)] == [State.PREPARING, State.RUNNING, State.STOPPING]
    assert [event.step for event in of(StepDone, seen)] == [1, 2, 3, 4]
    assert [event.step for event in of(Validated, seen)] == [0, 2, 4]
    assert [(event.step, event.base) for event in of(PreviewReady, seen)] == [(0, True), (2, False), (4, False)]
    assert [event.step for event in of(CheckpointSaved, seen)] == [2, 4]
    assert all((run.folder / event.path).is_file() for event in of(PreviewReady, seen))
    (started,), (finished,) = of(Started, seen), of(Finished, seen)
    assert (started.images, started.validation_images, started.modules) == (5, 1, 80)
    assert isinstance(seen[-1], Finished) and not finished.stopped and math.isfinite(finished.final_loss)
    made = adapters.read(run.folder / finished.adapter)
    assert (
        len(made.factors) == 80
        and made.metadata["ss_network_dim"] == "2"
        and made.metadata["modelspec.trigger_phrase"] == "discstyle"
        and made.metadata["ss_clip_skip"] == "2"
    )
    assert any(factors.up.abs().max() > 0 for factors in made.factors.values())
    told = recipe.read(made.metadata)
    assert told.steps == 4 and told.settings["rank"] == 2 and len(told.images) == 5
    assert told.tags["discstyle"] == told.tags["blue paper"] == 5, "the trigger word is a tag too"


@pytest.mark.fault(44)
@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit", "schedulefree", "adafactor"])
def test_a_resumed_run_is_the_run_that_was_never_stopped(new_run, settings, optimizer):
    """Fault 44. Bit for bit on the CPU, with everything that draws random numbers switched on."""
    random = {
        "dropout": 0.3,
        "ema": 0.9,
        "accumulate": 2,
        "flip": True,
        "shuffle_tags": True,
        "caption_dropout": 0.5,
        "noise_offset": 0.1,
    }
    settings = settings.changed(optimizer=optimizer, preview_every=0, validate_every=0, **random)
    whole, torn = new_run(settings), new_run(settings)
    collect(whole)
    for event in train(torn, settings):
        if isinstance(event, StepDone) and event.step == 3:
            break  # the worker dies here, one step after its checkpoint
    seen = collect(torn)
    assert of(Started, seen)[0].first_step == 2
    assert [event.step for event in of(StepDone, seen)] == [3, 4]
    assert_same(tensors(whole.adapter_file), tensors(torn.adapter_file))
    assert_same(state_tensors(whole), state_tensors(torn))


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(new_run, settings):
    settings = settings.changed(**QUIET)
    first, again, other = new_run(settings), new_run(settings), new_run(settings.changed(seed=1))
    for run in (first, again, other):
        collect(run)
    assert_same(tensors(first.adapter_file), tensors(again.adapter_file))
    assert any(
        not torch.equal(a, b)
        for a, b in zip(tensors(first.adapter_file).values(), tensors(other.adapter_file).values(), strict=True)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "dora"},
        {"method": "pissa"},
        {"rslora": True, "init": "kaiming"},
        {"targets": "qv"},
        {"targets": "attention+ff+conv"},
        {"lora_plus": 8},
        {"loss": "huber"},
        {"prediction": "v"},
        {"precision": "bf16"},
        {"checkpointing": True},
    ],
)
def test_every_way_of_training_learns_and_exports(new_run, settings, changes):
    run = new_run(settings.changed(preview_every=0, **changes))
    seen = collect(run)
    assert isinstance(seen[-1], Finished)
    assert all(torch.isfinite(tensor).all() for tensor in tensors(run.adapter_file).values())
    assert of(Validated, seen)[-1].loss != of(Validated, seen)[0].loss


class Asking(Requests):
    """Asks for something once ``train`` has come to a step."""

    def __init__(self):
        self.wants = set()

    def stop(self):
        return "stop" in self.wants

    def paused(self):
        return "pause" in self.wants

    def take_preview(self):
        return "preview" in self.wants and not self.wants.discard("preview")

    def take_save(self):
        return "save" in self.wants and not self.wants.discard("save")


def test_stop_keeps_what_was_learned(new_run, settings):
    settings = settings.changed(**QUIET)
    run, asking, seen = new_run(settings), Asking(), []
    for event in train(run, settings, asking):
        seen.append(event)
        if isinstance(event, StepDone) and event.step == 1:
            asking.wants.add("stop")
    assert seen[-1].stopped and seen[-1].steps == 1 and run.adapter_file.is_file()
    assert [event.step for event in of(StepDone, collect(run))] == [2, 3, 4]  # and it can resume


@pytest.mark.parametrize(
    ("changes", "asks"),
    [
        ({}, lambda event: isinstance(event, Preparing) and event.stage == "pictures"),
        ({"init": "eva"}, lambda event: isinstance(event, Preparing) and event.stage.endswith("layers' inputs")),
        (
            {"method": "lora-ga"},
            lambda event: (
                isinstance(event, Preparing) and event.stage.endswith("layers' gradients") and event.done == 9
            ),
        ),
        ({"find_rate": True}, lambda event: isinstance(event, Preparing) and event.stage == "learning rates"),
        ({}, lambda event: isinstance(event, Started)),
        ({}, lambda event: isinstance(event, PreviewReady) and event.base),
    ],
    ids=["encoding", "inputs", "gradients", "rates", "previews", "measuring"],
)
def test_a_stop_before_the_first_step_takes_effect_at_once_and_leaves_the_run_as_new(new_run, settings, changes, asks):
    """It looks at all layers, draws the base model's previews, saves and draws once more before it ends; or a run that
    is resumed begins with layers that were looked at halfway.
    """
    settings = settings.changed(**changes, validate_every=4, preview_every=4, steps=1, rank=2)
    run, asking, seen, late = new_run(settings), Asking(), [], []
    for event in train(run, settings, asking):
        seen.append(event)
        if asking.wants:
            late.append(event)
        elif asks(event):
            asking.wants.add("stop")
    (last,) = late
    assert isinstance(last, StateChanged) and last.state == State.INTERRUPTED and last.asked
    assert not run.adapter_file.exists() and not list(run.checkpoints.iterdir())
    other = new_run(settings)
    collect(run), collect(other)
    assert_same(tensors(run.adapter_file), tensors(other.adapter_file))


@pytest.mark.fault(47)
def test_a_stop_in_the_middle_of_a_save_lets_it_end(new_run, settings, monkeypatch):
    """Asked for as page and command do, once and again, while the second state is being written: it is whole, it is the
    last, and the run ends with its adapter.
    """
    run, real = new_run(settings.changed(steps=9, checkpoint_every=1, preview_every=0, validate_every=0)), files.write
    asked = []

    def write(path, data):
        if path.parent.name.startswith("step-2"):
            asked.append(path.name)
            control.ask(run, Request.STOP)
        return real(path, data)

    monkeypatch.setattr(files, "write", write)
    seen = list(worker.events(run))
    assert "state.safetensors" in asked and seen[-1].stopped and seen[-1].steps == 2
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-1", "step-2"] and all(
        checkpoints.complete(run.checkpoint(step)) for step in (1, 2)
    )
    assert_same(tensors(run.adapter_file), tensors(run.checkpoint(2) / "adapter.safetensors"))
    control.clear(run)
    assert next(event for event in train(run, settings) if isinstance(event, Started)).first_step == 2


def test_pause_waits_until_it_is_taken_back(new_run, settings):
    asking, seen, settings = Asking(), [], settings.changed(**QUIET)
    for event in train(new_run(settings), settings, asking):
        seen.append(event)
        if isinstance(event, StepDone) and event.step == 1:
            asking.wants.add("pause")
        if isinstance(event, StateChanged) and event.state == State.PAUSED:
            asking.wants.clear()
    states = [event.state for event in of(StateChanged, seen)]
    assert states == [State.PREPARING, State.RUNNING, State.PAUSED, State.RUNNING, State.STOPPING]


def test_preview_now_and_save_now(new_run, settings):
    settings = settings.changed(preview_every=0, checkpoint_every=0)
    asking, seen, run = Asking(), [], new_run(settings)
    for event in train(run, settings, asking):
        seen.append(event)
        if isinstance(event, StepDone) and event.step == 1:
            asking.wants |= {"preview", "save"}
    assert [event.step for event in of(PreviewReady, seen)] == [0, 1, 4]
    assert [event.step for event in of(CheckpointSaved, seen)] == [1, 4]
    kept, saved = run.judged_adapter(1), run.checkpoint(1) / "adapter.safetensors"
    assert kept.read_bytes() == saved.read_bytes(), "a preview keeps the adapter that it was drawn with"


def test_states_are_saved_by_the_clock_and_pruned_by_the_rule(new_run, settings, monkeypatch):
    """A slow machine loses hours to a power cut, or a long run fills the disk with states."""
    now = [0.0]
    monkeypatch.setattr(saving.time, "monotonic", lambda: now[0])
    real = leader.train_step

    def train_step(session):
        now[0] += 200.0
        return real(session)

    monkeypatch.setattr(leader, "train_step", train_step)
    run = new_run(
        settings.changed(**QUIET, steps=8, checkpoint_every=0, checkpoint_minutes=5, keep_checkpoints=1, keep_every=4)
    )
    seen = []
    for event in train(run, run.settings()):
        seen.append(event)
        if isinstance(event, CheckpointSaved) and event.step == 2:
            checkpoints.star(run, 2)
    assert [event.step for event in of(CheckpointSaved, seen)] == [2, 4, 6, 8]
    assert [saved.step for saved in checkpoints.listed(run)] == [2, 4, 8]


class OnAFullDisk(Asking):
    """Presses what it is told as soon as the loop waits."""

    def __init__(self, press):
        super().__init__()
        self.press, self.waits = press, 0

    def pause(self):
        self.waits += 1
        self.wants.add("pause")
        self.press(self)
        return True

    def end_pause(self):
        self.wants.discard("pause")

    def take_stop(self):
        return "stop" in self.wants and not self.wants.discard("stop")


@pytest.fixture
def disk(monkeypatch):
    """A disk that is full while it says so; room comes back by itself only where the test has it so."""
    state, real = {"full": False, "room": 0}, checkpoint._fill

    def fill(*arguments):
        if state["full"]:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr("lora_studio.training.checkpoint._fill", fill)
    monkeypatch.setattr(files, "room", lambda path: state["room"])
    monkeypatch.setattr(saving, "POLL", 0.001)
    monkeypatch.setattr(saving, "RETRY", 0.05)
    return state


@pytest.mark.fault(41)
@pytest.mark.parametrize("ended_by", ["room", "user"])
def test_a_full_disk_pauses_the_run_until_there_is_room(new_run, settings, disk, ended_by):
    """What was learned since the last state lies in memory alone: neither lost nor trained further into the unknown."""

    def press(asking):
        assert checkpoints.latest(run) == run.checkpoint(2), "the older state is intact"
        disk.update(full=False, room=10**9 if ended_by == "room" else 0)
        if ended_by == "user":
            asking.wants.discard("pause")

    run, asking, seen = new_run(settings.changed(**QUIET)), OnAFullDisk(press), []
    for event in train(run, run.settings().changed(steps=6), asking):
        seen.append(event)
        disk["full"] = disk["full"] or isinstance(event, StepDone) and event.step == 4
    told = [event.what for event in of(Warned, seen) if "step 4 could not be saved" in event.what]
    assert len(told) == 1 and "the disk is full, " in told[0] and "MB are free" in told[0]
    assert [event.state for event in of(StateChanged, seen)] == [
        State.PREPARING,
        State.RUNNING,
        State.PAUSED,
        State.RUNNING,
        State.STOPPING,
    ]
    assert [event.step for event in of(CheckpointSaved, seen)] == [2, 4, 6] and [
        event.step for event in of(StepDone, seen)
    ] == [1, 2, 3, 4, 5, 6]
    assert asking.waits == 1 and not asking.wants


@pytest.mark.fault(41)
def test_on_a_full_disk_the_adapter_waits_and_a_second_stop_gives_up(new_run, settings, monkeypatch, disk):
    run, real = new_run(settings.changed(**QUIET)), export.write

    def write(session, path):
        if path == run.adapter_file:
            raise OSError(28, "No space left on device")
        return real(session, path)

    monkeypatch.setattr(export, "write", write)
    asking = OnAFullDisk(lambda asking: asking.wants.add("stop"))
    with pytest.raises(files.DiskFull, match="adapter could not be written"):
        for event in train(run, run.settings(), asking):
            if isinstance(event, StepDone) and event.step == 3:
                asking.wants.add("stop")
    assert asking.waits == 1 and checkpoints.latest(run) == run.checkpoint(3), "the state was saved first"


@pytest.mark.fault(56)
def test_a_drive_that_goes_away_is_named_and_the_run_resumes_when_it_is_back(new_run, settings, monkeypatch):
    run = new_run(settings.changed(**QUIET))
    monkeypatch.setattr(
        "lora_studio.adapters.tensors.files.replace", raising(OSError(5, "Input/output error", str(run.folder)))
    )
    with pytest.raises(MachineError, match="Input/output error") as caught:
        collect(run)
    assert str(run.folder) in caught.value.where
    monkeypatch.undo()
    assert isinstance(collect(run)[-1], Finished)


def raising(error):
    def act(*_, **__):
        raise error

    return act


@pytest.mark.fault(49)
@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: unspecified launch failure"),
        RuntimeError("CUDA error: device-side assert triggered\nlong advice"),
    ],
)
def test_a_lost_device_ends_the_worker_plainly_and_the_run_resumes(new_run, settings, monkeypatch, error):
    """The exception at the call that would raise it: the forward pass of a step, or a preview, which is no mere warning
    then.
    """
    run, real = new_run(settings.changed(**QUIET)), Batches.draw
    monkeypatch.setattr(
        Batches, "draw", lambda batches, number: raising(error)() if number == 3 else real(batches, number)
    )
    with pytest.raises(MachineError, match="graphics device stopped responding: CUDA error") as caught:
        collect(run)
    assert "long advice" not in str(caught.value) and "last saved state" in caught.value.do
    monkeypatch.undo()
    monkeypatch.setattr("lora_studio.training.previews.generate", raising(error))
    with pytest.raises(MachineError, match="stopped responding"):
        collect(run)
    monkeypatch.undo()
    assert of(Started, seen := collect(run))[0].first_step == 4 and isinstance(seen[-1], Finished)


@pytest.mark.fault(37)
def test_out_of_memory_in_mid_run_keeps_the_checkpoint_and_names_what_would_fit(new_run, settings, monkeypatch):
    run, real = new_run(settings.changed(**QUIET)), Batches.draw
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    monkeypatch.setattr(
        Batches, "draw", lambda batches, number: raising(full)() if number == 3 else real(batches, number)
    )
    with pytest.raises(MachineError, match="The memory of this computer is full") as caught:
        collect(run)
    changes = caught.value.details["changes"]
    assert changes and all(f"{key} to {value}" in caught.value.do for key, value in changes.items())
    assert settings.changed(**changes) != settings
    assert checkpoints.latest(run) == run.checkpoint(2)


@pytest.mark.fault(50)
def test_a_disk_that_takes_no_preview_is_a_warning(new_run, settings, monkeypatch):
    real = files.write
    monkeypatch.setattr(
        files,
        "write",
        lambda path, content: (
            raising(OSError(28, "No space left on device"))() if path.suffix == ".png" else real(path, content)
        ),
    )
    seen = collect(new_run(settings))
    assert isinstance(seen[-1], Finished) and any("the disk is full" in event.what for event in of(Warned, seen))


@pytest.mark.fault(35)
def test_a_loss_that_is_nan_rolls_back_and_continues_slower(new_run, settings, monkeypatch):
    """Fault 35: stopped before the optimizer step, back to the last checkpoint, half the rate, said in the log."""
    real, broken = Batches.draw, {3}

    def draw(batches, number):
        batch = real(batches, number)
        return (
            batch._replace(noise=batch.noise * math.nan) if number in broken and not broken.discard(number) else batch
        )

    monkeypatch.setattr(Batches, "draw", draw)
    seen = collect(new_run(settings.changed(**QUIET, schedule="constant", warmup=0)))
    (back,) = of(RolledBack, seen)
    assert (back.failed_step, back.step, back.factor) == (4, 2, 0.5)
    assert [event.step for event in of(StepDone, seen)] == [1, 2, 3, 3, 4]
    assert [event.learning_rate for event in of(StepDone, seen)] == pytest.approx([1e-2, 1e-2, 1e-2, 5e-3, 5e-3])
    assert isinstance(seen[-1], Finished)


@pytest.mark.fault(35)
def test_a_run_that_keeps_diverging_gives_up_and_keeps_its_checkpoint(new_run, settings, monkeypatch):
    """Fault 35: the file of the last good step is whole and finite."""
    settings = settings.changed(**QUIET)
    run, real = new_run(settings), Batches.draw

    def draw(batches, number):
        batch = real(batches, number)
        return batch._replace(noise=batch.noise * math.nan) if number == 2 else batch

    monkeypatch.setattr(Batches, "draw", draw)
    seen = []
    with pytest.raises(RunError, match="loss of step 3"):
        for event in train(run, settings):
            seen.append(event)
    assert [event.factor for event in of(RolledBack, seen)] == [0.5, 0.25, 0.125]
    assert all(torch.isfinite(tensor).all() for tensor in tensors(run.checkpoint(2) / "adapter.safetensors").values())


def test_previews_ask_no_text_encoder_again(new_run, settings, monkeypatch):
    """On a small card there is no room for one beside the UNet, the adapter and the optimizer."""
    asked, seen, real = [], [], Base.encode_text
    monkeypatch.setattr(Base, "encode_text", lambda base, texts, *how: asked.append(texts) or real(base, texts, *how))
    run = new_run(
        settings.changed(steps=2, validate_every=0, negative="blurred", preview_prompts=["a disc, {trigger}"])
    )
    for event in train(run, run.settings()):
        seen.append(event)
        if isinstance(event, Started):
            assert sorted(text for texts in asked for text in texts).count("blurred") == 1
            asked.clear()
    assert not asked and len(of(PreviewReady, seen)) == 2


@pytest.mark.fault(50)
def test_a_preview_that_fails_is_a_warning(new_run, settings, monkeypatch):
    """Fault 50."""

    def broken(*_, **__):
        raise RuntimeError("no memory for this picture")

    monkeypatch.setattr("lora_studio.training.previews.generate", broken)
    seen = collect(new_run(settings))
    assert isinstance(seen[-1], Finished)
    assert any("no memory for this picture" in event.what for event in of(Warned, seen))


@pytest.mark.fault(1)
def test_an_empty_folder_is_refused_with_its_name(new_run, settings, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DatasetError) as caught:
        collect(new_run(settings.changed(data=str(empty))))
    assert "empty" in caught.value.where


@pytest.mark.fault(21, 46)
def test_pictures_that_changed_since_the_run_began_are_named(new_run, settings, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(settings.run.data, copy)
    run = new_run(settings.changed(data=str(copy), steps=1, preview_every=0, validate_every=0))
    collect(run)
    (copy / "disc0.txt").write_text("another caption")
    (copy / "disc1.png").unlink()
    warned = " ".join(event.what for event in of(Warned, collect(run)))
    assert "disc0.png has a different caption." in warned and "disc1.png was removed." in warned


def test_pictures_and_base_may_vanish_between_runs(new_run, settings, tmp_path):
    gone = tmp_path / "gone"
    shutil.copytree(settings.run.data, gone)
    run = new_run(settings.changed(data=str(gone)))
    shutil.rmtree(gone)
    with pytest.raises(DatasetError):
        collect(run)
