"""Saved states are judged by what they draw, once, and the advice follows what was found."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save

from lora_studio import files, runs
from lora_studio.cli import main
from lora_studio.errors import DatasetError, ModelError, RunError, SettingsError
from lora_studio.evaluation import bench, features, judgements, judging, perception, subjects
from lora_studio.evaluation.advice import advise
from lora_studio.evaluation.judgements import Conditions, Copy, Judgement, JudgingPlan, Memorized
from lora_studio.evaluation.perception import Seen
from lora_studio.evaluation.value import Value
from lora_studio.jobs import judging_worker
from lora_studio.jobs.eventlog import EventLog
from lora_studio.jobs.judging import JudgingJob
from lora_studio.runs import Run
from lora_studio.training.loop import train

# its folder's conftest makes runs on a tiny model
from tests.training.conftest import new_run, pictures, tiny_base, tiny_settings  # noqa: F401

PROMPTS = ("a cat", "a house")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_base, pictures):  # noqa: F811
    """A run with saved states of steps 2 and 4, not to be changed."""
    how = tiny_settings(tiny_base, pictures).changed(keep_checkpoints=9)
    made = runs.create(how, tmp_path_factory.mktemp("made") / "outputs")
    assert list(train(made, made.settings()))
    return made


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it."""
    shutil.copytree(trained.folder.parent, tmp_path / "outputs")
    return Run(tmp_path / "outputs" / trained.name)


def judged(run, **how):
    return [event for event in judging.judge(run, PROMPTS, **how) if isinstance(event, Judgement)]


def test_every_state_is_judged_once_and_again_where_the_result_is_damaged(run, monkeypatch, capsys):
    first = judged(run)
    assert [one.step for one in first] == [2, 4]
    place = judging.folder(run)
    assert {path.name for path in (place / "step-4").iterdir()} == {
        "0-0.png", "0-1.png", "1-0.png", "1-1.png", "adapter.safetensors", "judged.json",
        *(f"caption-{number}.png" for number in range(6)),
    }  # fmt: skip
    assert first[0].drawn == 4 and first[0].memorized.asked == 6
    assert (place / "step-4" / "adapter.safetensors").read_bytes() == (
        run.checkpoint(4) / "adapter.safetensors"
    ).read_bytes()
    monkeypatch.setattr(judging.Bench, "judge", lambda *_: pytest.fail("it was judged again"))
    monkeypatch.setattr(judging.Bench, "_draw", lambda *_: pytest.fail("the base model drew again"))
    assert judged(run) == first == judging.judged(run)

    def begin(job, order):
        """In this process, in which nothing may be judged again."""
        files.write(job.order_file, order.model_dump_json())
        assert judging_worker.work(job, EventLog(job.events_file), lambda: False) == 0

    monkeypatch.setattr(JudgingJob, "begin", begin)
    steps = ("--step=2", "--step=4")  # by name, so that no strengths are drawn
    assert main(["judge", str(run.folder), *steps, *(f"--prompt={one}" for one in PROMPTS), "--json"]) == 0
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


def test_runs_of_one_base_model_share_its_pictures(run, new_run, monkeypatch):  # noqa: F811
    """Every run, and every trial of a sweep, drew the same pictures again."""
    judged(run, steps=[4])
    other, drawn, draw = new_run(run.settings()), [], bench.generate
    shutil.copytree(run.checkpoint(4), other.checkpoint(4))
    monkeypatch.setattr(bench, "generate", lambda base, prompts, *rest, **how: (
        drawn.extend(prompts) or draw(base, prompts, *rest, **how)
    ))  # fmt: skip
    (found,) = judged(other)
    assert len(drawn) == 2 * 4 + 6, "of the state alone, with the trigger word, without it, and by captions"
    for name in ("style", "subject", "level"):
        assert getattr(found, name) == getattr(judging.judged(run)[0], name)
    assert (judging.folder(other) / "base" / "1-1.png").read_bytes() == (
        judging.folder(run) / "base" / "1-1.png"
    ).read_bytes()
    drawn.clear()
    changed = new_run(run.settings().changed(negative="blur"))
    shutil.copytree(run.checkpoint(4), changed.checkpoint(4))
    judged(changed)
    assert len(drawn) == 2 * 4 + 6 + (2 + 2) * 2 + 6 * 2, "drawn otherwise, so the base model's pictures are too"


def test_prompts_are_subjects_that_the_captions_do_not_name(tmp_path):
    from PIL import Image

    from lora_studio.dataset import folder

    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("A Cat, two ships; cherry-blossom and puppies")
    plan = JudgingPlan.of(folder.scan(tmp_path))
    named = {"a cat", "a boat", "a flower", "a dog"}
    assert len(plan.prompts) == 12 and not named & set(plan.prompts) and "a house" in plan.prompts
    assert plan.seed_numbers == range(1001, 1003)


def test_prompts_are_never_too_few_to_compare():
    everything = " ".join(subjects.SUBJECTS)
    assert subjects.prompts([everything.replace("hat", "")], 12) == ("a hat", "a cat", "a house", "a tree")
    assert subjects.prompts([everything], 12)[:2] == ("a cat", "a house") and "an apple" in subjects.prompts([], 99)


def state(step, style, subject=0.6, copies=(), spread=1.0):
    samples = tuple(style + spread * (index % 5 - 2) for index in range(100))
    value = Value(style, style - 5, style + 5)
    return Judgement(
        step, value, Value(subject, subject - 0.05, subject + 0.05), Value(0.45), Value(1.0), copies, {"style": samples}
    )


def test_advice_is_the_most_style_of_what_holds():
    copied = state(400, 95, copies=(Copy(0, 0, "a.png", 0.97),))
    advice = advise([state(100, 40), state(200, 80), state(300, 90, subject=0.3), copied])
    assert (advice.step, advice.alike, advice.freer, advice.tighter) == (200, (200,), 100, 300)
    assert (
        advice.sentence
        == "Keep step 200: style 80 % (between 75 and 85); subjects hold, but fade from step 300 on; no copies."
    )


def test_where_every_state_copied_none_is_recommended():
    """ "Keep step 2,054", of a state that gives all its training pictures back."""
    copied = state(400, 95, copies=(Copy(0, 0, "a.png", 0.97),))
    advice = advise([state(200, 80, subject=0.2), copied])
    assert not advice.sound and advice.sentence.startswith(
        "In no state do subjects hold without copies: look at its pictures. Step 400 has most of the style: style 95 %"
    )
    assert advise([copied, state(200, 80)]).sound


def test_a_state_that_gives_back_what_its_captions_ask_for_copies():
    back = tuple(Copy(number, 0, f"{number}.png", 0.9) for number in range(4))
    alone = replace(state(400, 95), drawn=24, memorized=Memorized(8, back))
    assert alone.copied and alone.told_copies == "asked by their captions, 4 of 8 training pictures come back"
    few = replace(alone, copies=back[:2], memorized=Memorized(8, back[:1]))
    assert few.copied and few.told_copies == (
        "2 of 24 pictures of new prompts may be copies; asked by their captions, 1 of 8 training pictures comes back"
    )
    assert not replace(alone, memorized=Memorized(8, back[:3])).copied and not state(400, 95).copied
    assert advise([state(200, 80), alone]).step == 200


def test_advice_says_what_cannot_be_told_apart():
    advice = advise([state(100, 40), state(200, 79.5, spread=3), state(300, 80), state(400, 79.9)])
    assert advice.step == 300 and 200 in advice.alike and 100 not in advice.alike
    assert "no better later" in advice.sentence and "cannot be told from that of step" in advice.sentence
    assert advise([]) is None


def test_advice_where_nothing_holds_says_so():
    advice = advise([state(100, 40, subject=0.2), state(200, 50, subject=0.2), state(300, 45, subject=0.2)])
    assert advice.step == 200 and "subjects fade in every state; " in advice.sentence


def test_what_cannot_be_measured_is_refused_in_words(run, tmp_path, monkeypatch):
    """With one prompt every state would be said to hold its subjects; with equal pictures all is not a number."""
    with pytest.raises(SettingsError, match="with one prompt"):
        list(judging.judge(run, ["a cat"]))
    look = perception.look
    with monkeypatch.context() as patch, pytest.raises(DatasetError, match="pictures that are all the same"):
        patch.setattr(perception, "look", lambda *how: Seen(*(torch.ones_like(one) for one in look(*how))))
        judged(run)
    shutil.rmtree(judging.folder(run))
    monkeypatch.setattr(bench.drift, "drift", lambda *_: Value(float("nan")))
    with pytest.raises(ModelError, match="Step 2 cannot be measured"):
        judged(run)
    assert judging.judged(run) == []


@pytest.mark.parametrize(
    "damage",
    [
        {"style": [float("nan")] * 3},
        {"style": [None]},
        {"style": [10**400, 1, 2]},
        {"level": ["0.4"], "subject": ["high"]},
        {"samples": {}},
        {"samples": {"style": []}},
        {"samples": {"style": [1.0, 2.0], "drift": [1.0]}},
        {"samples": {"style": ["x"]}},
        {"extra": {"clip text": ["x"]}},
        {"copies": [{"prompt": -9, "seed": 0, "training": "a.png", "likeness": 0.9}]},
        {"memorized": None},
        {"step": -1},
    ],
)
def test_what_is_damaged_was_not_judged(tmp_path, damage):
    """The page and the advice fail on each of these."""
    value, under = Value(50.0, 40.0, 60.0), Conditions("k", JudgingPlan(PROMPTS))
    good = Judgement(2, value, value, value, value, (), {"style": (50.0,)}, {"clip text": Value(0.3)})
    judgements.write(good, under, tmp_path)
    file = judgements.state_folder(tmp_path, 2) / "judged.json"
    assert judgements.read(tmp_path, 2, "k") == good
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    assert judgements.read(tmp_path, 2, "k") is None


def test_features_that_cannot_be_used_are_drawn_again(tmp_path):
    file, whole = tmp_path / "features.safetensors", {name: torch.ones(2, 2) for name in features.NAMES}
    for tensors, key, sound in (
        (whole, "k", True),
        (whole, "other", False),
        ({name: one * float("inf") for name, one in whole.items()}, "k", False),
        ({name: one.int() for name, one in whole.items()}, "k", False),
        ({"base style": torch.ones(2)}, "k", False),
    ):
        file.write_bytes(save(tensors, {"key": key}))
        assert bool(features.kept(file, "k")) is sound
    for data in (b"", (2).to_bytes(8, "little") + b"[]", (90000).to_bytes(8, "little") + b"[" * 90000):
        file.write_bytes(data)
        assert features.kept(file, "k") == {}
