"""The trial before a run: real steps, a real preview, nothing left behind but the cache."""

import json
import os

import pytest
import torch

from lora_studio import cli, events, runs
from lora_studio.errors import DatasetError, MachineError
from lora_studio.events import Finished, PreviewReady, StepDone
from lora_studio.jobs import environment
from lora_studio.training import leader, preflight


def measured(settings, outputs):
    """All events, and the result."""
    trial, seen = preflight.measure(settings, outputs), []
    while True:
        try:
            seen.append(next(trial))
        except StopIteration as end:
            return seen, end.value


def test_two_steps_and_a_preview_are_measured_and_no_run_is_left(settings, tmp_path):
    """However long the run is to be; what was encoded stays, so that the run itself finds it."""
    outputs = tmp_path / "outputs"
    seen, found = measured(settings.changed(steps=5000, preview_prompts=["a", "b", "c"]), outputs)
    assert [event.step for event in seen if isinstance(event, StepDone)] == [1, 2] and isinstance(seen[-1], Finished)
    assert sum(isinstance(event, PreviewReady) and not event.base for event in seen) == 1
    assert found.previews and found.step_seconds > 0 and found.peak > 50 * 2**20
    assert found.copies == 6 and 0 < found.encoding_seconds < 60
    assert (
        runs.existing(outputs) == []
        and [path.name for path in outputs.iterdir()] == [".cache"]
        and list(runs.trials_folder(outputs).iterdir()) == []
    )
    assert list((outputs / ".cache" / "latents").iterdir())


def test_too_little_memory_is_an_answer_and_not_a_fault(settings, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(leader, "train_step", full)
    assert measured(settings, tmp_path)[1] is None
    assert runs.existing(tmp_path) == []


def test_where_steps_are_recorded_there_are_enough_for_that_and_the_quickest_counts(settings, tmp_path, monkeypatch):
    """The graph's memory is not in the sum, or its recording passes for a step."""
    asked = []

    def played(run, given):
        asked.append(given.run.steps)
        yield from (
            StepDone(step=step, loss=1, learning_rate=1, seconds=at) for step, at in enumerate((3.0, 9.0, 9.5, 10.5), 1)
        )

    monkeypatch.setattr(preflight, "train", played)
    monkeypatch.setattr(preflight.stepper, "obstacle", lambda *_: "")
    assert measured(settings, tmp_path)[1].step_seconds == 0.5 and asked == [preflight.CAPTURED_STEPS]


@pytest.mark.fault(43)
def test_what_a_killed_trial_left_is_swept_by_the_next(settings, tmp_path):
    """The system ends it when memory is short, and its folder would stay for ever."""
    left, held = (runs.trials_folder(tmp_path) / f"trial.{process}.partial" for process in (2**22 + 1, os.getppid()))
    for folder in (left, held):
        folder.mkdir(parents=True)
    with pytest.raises(DatasetError):
        measured(settings.changed(data=str(tmp_path / "nowhere")), tmp_path)
    assert list(runs.trials_folder(tmp_path).iterdir()) == [held]


def test_what_else_goes_wrong_is_told(settings, tmp_path):
    with pytest.raises(DatasetError):
        measured(settings.changed(data=str(tmp_path / "nowhere")), tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(MachineError):
            measured(settings.changed(device="cuda"), tmp_path)


def command(settings, outputs, capsys, *more) -> str:
    arguments = [
        "train",
        "--data",
        settings.run.data,
        "--base",
        settings.run.base,
        "--dry-run",
        "--outputs",
        str(outputs),
        "--set",
        "resolution=64",
        "--set",
        "device=cpu",
        "--set",
        "rank=2",
        *more,
    ]
    assert cli.main(arguments) == 0
    return capsys.readouterr().out


def test_the_command_tells_a_person(settings, tmp_path, capsys, monkeypatch):
    """And measures a card's memory as a run's own process has it."""
    monkeypatch.setattr(
        os, "environ", {name: value for name, value in os.environ.items() if name not in environment.CARD}
    )
    told = command(settings, tmp_path, capsys)
    assert "base model" in told and "Measured: " in told and "It fits." in told
    assert "But note:" in told.partition("It fits.")[2], "a warning before the verdict is easily overlooked"
    assert environment.CARD.items() <= os.environ.items()
    assert runs.existing(tmp_path) == []


def test_the_command_tells_a_program_what_would_fit(settings, tmp_path, capsys, monkeypatch):
    """The estimate first, then the trial's events, at the end one object that holds all: the page reads them as
    they come.
    """
    monkeypatch.setattr(preflight, "limit", lambda device: 16 * 2**20)
    first, *between, last = command(
        settings, tmp_path, capsys, "--set", "batch=8", "--set", "device=cpu", "--json"
    ).splitlines()
    estimated, told = json.loads(first)["estimated"], json.loads(last)
    assert estimated["fits"] is False and estimated["limit"] == 16 * 2**20 and estimated["estimate"] == told["estimate"]
    assert estimated["would_fit"] and all(way["peak"] <= estimated["limit"] for way in estimated["would_fit"])
    assert [event.step for event in map(events.parse, between) if isinstance(event, StepDone)] == [1, 2]
    assert (
        told["fits"] is False
        and told["limit"] == 16 * 2**20
        and told["precision"] == "fp32"
        and told["family"] == "starter"
        and told["predicts"] == "Noise (ε) – its scheduler's configuration"
    )
    assert set(told["estimate"]) == {
        "weights",
        "adapter",
        "gradients",
        "optimizer",
        "activations",
        "working",
        "encoding",
        "preview",
        "step",
        "peak",
    }
    assert told["measured"]["peak"] > told["limit"] and told["measured"]["previews"] is True
    assert all(way["peak"] <= told["limit"] and way["changes"] for way in told["would_fit"])
