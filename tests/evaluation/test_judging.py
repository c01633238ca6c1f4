"""Saved states are judged by what they draw, once, and the advice follows what was found."""

import json

import pytest

from lora_studio.cli import main
from lora_studio.errors import RunError
from lora_studio.evaluation import judging
from lora_studio.evaluation.advice import advise
from lora_studio.evaluation.judging import Copy, Judgement, JudgingPlan
from lora_studio.evaluation.measure import Value
from lora_studio.training.loop import train

# its folder's conftest makes runs on a tiny model
from tests.training.conftest import new_run, pictures, settings, tiny_base  # noqa: F401

PROMPTS = ("a cat", "a house")


@pytest.fixture
def run(new_run, settings):  # noqa: F811
    made = new_run(settings.changed(keep_checkpoints=9))
    for _ in train(made, made.settings()):
        pass
    return made


def judged(run, **how):
    return [event for event in judging.judge(run, PROMPTS, **how) if isinstance(event, Judgement)]


def test_every_state_is_judged_once_and_again_where_the_result_is_damaged(run, monkeypatch, capsys):
    first = judged(run)
    assert [one.step for one in first] == [2, 4]
    place = judging.folder(run)
    assert {path.name for path in (place / "step-4").iterdir()} == {
        "0-0.png", "0-1.png", "1-0.png", "1-1.png", "adapter.safetensors", "judged.json",
    }  # fmt: skip
    assert (place / "step-4" / "adapter.safetensors").read_bytes() == (
        run.checkpoint(4) / "adapter.safetensors"
    ).read_bytes()
    monkeypatch.setattr(judging.Bench, "judge", lambda *_: pytest.fail("it was judged again"))
    monkeypatch.setattr(judging.Bench, "_draw", lambda *_: pytest.fail("the base model drew again"))
    assert judged(run) == first == judging.judged(run)

    assert main(["judge", str(run.folder), *(f"--prompt={one}" for one in PROMPTS), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in told["judged"]] == [2, 4] and told["advice"]["step"] in (2, 4)

    with pytest.raises(RunError, match="no saved state of step 3") as error:
        judged(run, steps=[3])
    assert "Choose among 2, 4" in error.value.do

    monkeypatch.undo()
    (place / "step-2" / "judged.json").write_text("{")
    (place / "base" / "features.safetensors").write_bytes(b"\0" * 20)
    again = judged(run, steps=[2])
    assert again[0].style.value == pytest.approx(first[0].style.value, abs=0.01)


def test_prompts_are_subjects_that_the_captions_do_not_name(tmp_path):
    from PIL import Image

    from lora_studio.dataset import folder

    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("A Cat, boat")
    plan = JudgingPlan.of(folder.scan(tmp_path))
    assert len(plan.prompts) == 12 and not {"a cat", "a boat"} & set(plan.prompts)


def state(step, style, subject=0.6, copies=(), spread=1.0):
    samples = tuple(style + spread * (index % 5 - 2) for index in range(100))
    value = Value(style, style - 5, style + 5)
    return Judgement(
        step, value, Value(subject, subject - 0.05, subject + 0.05), Value(0.45), Value(1.0), copies, samples
    )


def test_advice_is_the_most_style_of_what_holds():
    copied = state(400, 95, copies=(Copy(0, 0, "a.png", 0.97),))
    advice = advise([state(100, 40), state(200, 80), state(300, 90, subject=0.3), copied])
    assert (advice.step, advice.alike, advice.freer, advice.tighter) == (200, (200,), 100, 300)
    assert (
        advice.sentence
        == "Keep step 200: style 80 % (between 75 and 85); subjects hold and fade from step 300 on; no copies."
    )


def test_advice_says_what_cannot_be_told_apart():
    advice = advise([state(100, 40), state(200, 79.5, spread=3), state(300, 80), state(400, 79.9)])
    assert advice.step == 300 and 200 in advice.alike and 100 not in advice.alike
    assert "no better later" in advice.sentence and "cannot be told from that of step" in advice.sentence
    assert advise([]) is None


def test_advice_where_nothing_holds_says_so():
    advice = advise([state(100, 40, subject=0.2), state(200, 50, subject=0.2)])
    assert advice.step == 200 and "subjects fade in every state" in advice.sentence
