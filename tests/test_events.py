"""Events go through JSON and come back the same; what is no event is refused."""

import json
import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio import events as e
from lora_studio.errors import DatasetError

SAMPLES = [
    e.StateChanged(state=e.State.PAUSED),
    e.Preparing(stage="latents", done=3, total=24),
    e.BaseLoaded(name="ink", family="Stable Diffusion XL", predicts="Velocity (v)", reason="the file's mark v_pred"),
    e.Started(total_steps=300, images=20, device="CPU", precision="fp32", parameters=1000, modules=64),
    e.LayersSeen(what="inputs", layers=63, of=64, samples=16, seconds=4.5, memory=2**20),
    e.RateFound(rate=3e-4, low=1e-5, high=0.1, rates=(1e-4, 1e-3), losses=(0.5, 0.25)),
    e.StepDone(step=7, loss=0.125, learning_rate=1e-4),
    e.Validated(step=50, loss=0.25),
    e.Measured(step=50, name="norm", title="Length of B", value=0.5, low=0.25, high=0.75),
    e.PreviewReady(step=0, index=1, prompt='a "cat", naïve 猫', seed=2, path="previews/base-1.png", base=True),
    e.CheckpointSaved(step=100, path="checkpoints/step-100"),
    e.RolledBack(step=100, failed_step=120, factor=0.5, what="Step 120 gave no number."),
    e.Warned(what="A picture is small.", where="a.png", do="Use a larger one."),
    e.CaptioningStarted(done=3, total=24, model="BLIP", device="CPU, 2 threads"),
    e.Captioned(name="10_ink/a.png", text="a boat, naïve 猫", cut=True),
    e.CaptionsWritten(written=("10_ink/a.png", "b.png"), kept=("c.png",)),
    e.JudgingStarted(total=3, strengths=1.5),
    e.Judged(step=100, style=71.5, low=60.0, high=80.0, subject=0.5, level=0.45, fades=False, drift=1.0, copies=1),
    e.StateKept(step=100, what="style 71 %; subjects hold; no copies"),
    e.Finished(adapter="ink.safetensors", steps=300, seconds=58.5, final_loss=0.1),
    e.Failed(what="It broke."),
]


def test_the_samples_are_all_kinds_there_are():
    assert {type(sample) for sample in SAMPLES} == set(get_args(get_args(e.AnyEvent)[0]))


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: event.kind)
def test_every_kind_goes_through_json_unchanged_on_one_line(event):
    line = event.line()
    assert "\n" not in line and json.loads(line)["kind"] == event.kind
    assert e.parse(line) == event


@given(st.text(), st.floats())
def test_any_text_and_any_number_come_back(text, number):
    event = e.parse(e.Warned(what=text).line())
    assert event.what == text
    loss = e.parse(e.StepDone(step=1, loss=number, learning_rate=1e-4).line()).loss
    assert loss == number or (math.isnan(loss) and math.isnan(number))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        '{"kind": "unknown"}',
        '{"kind": "step"}',
        '{"kind": "step", "step": "x", "loss": 1, "learning_rate": 1}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_event_is_a_value_error(line):
    with pytest.raises(ValueError):
        e.parse(line)


def test_a_field_of_a_later_version_is_passed_over():
    """An older studio must still show a newer one's runs."""
    assert e.parse('{"kind": "checkpoint", "at": 1.0, "step": 3, "path": "x", "colour": "red"}') == e.CheckpointSaved(
        at=1.0, step=3, path="x"
    )


def test_a_users_problem_keeps_its_words_and_a_fault_of_ours_is_called_one():
    mendable = e.Failed.of(DatasetError("No pictures.", where="folder", do="Add some."))
    assert (mendable.what, mendable.where, mendable.do, mendable.ours) == ("No pictures.", "folder", "Add some.", False)
    ours = e.Failed.of(KeyError("x"))
    assert ours.ours and "KeyError" in ours.what and "worker.log" in ours.do


@pytest.mark.parametrize(
    ("state", "ended"), [(state, state in ("finished", "failed", "interrupted")) for state in e.State]
)
def test_which_states_are_the_end(state, ended):
    assert state.ended is ended
