"""``compare`` for real on a tiny model: everything is judged under the first run's conditions, and kept."""

import json
import shutil
from unittest.mock import Mock

import pytest
from PIL import Image

from lora_studio import runs
from lora_studio.cli import main
from lora_studio.config.settings import Settings
from lora_studio.evaluation import judgements, judging, side_by_side
from lora_studio.evaluation.bench import Bench, Cancelled
from lora_studio.evaluation.comparison_sheet import KEY
from lora_studio.sweeps import space, study
from lora_studio.sweeps.outcome import Trial, TrialState
from lora_studio.sweeps.study import StudyPlan
from lora_studio.training.loop import train
from tests.training.conftest import pictures, tiny_base  # noqa: F401
from tests.vision.test_scorers import classifier

PROMPTS = ["--prompt=a cat", "--prompt=a house"]


@pytest.fixture(scope="module")
def settings(tiny_base, pictures):  # noqa: F811
    return Settings(
        data=str(pictures), base=str(tiny_base), trigger="discstyle", resolution=64, steps=2, rank=2, alpha=2, batch=2,
        device="cpu", preview_steps=1, preview_every=0, deterministic=True, validate_every=0, checkpoint_every=1,
        keep_checkpoints=9, learning_rate=1e-2, max_upscale=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory, settings, pictures):  # noqa: F811
    """Runs a and b, which has another seed, rate, trigger word and sampler, and c, which lacks two pictures."""
    outputs = tmp_path_factory.mktemp("outputs")
    fewer = tmp_path_factory.mktemp("pictures") / "fewer"
    shutil.copytree(pictures, fewer)
    for name in ("disc0", "disc1"):
        (fewer / f"{name}.png").unlink()
    other = {"seed": 5, "learning_rate": 2e-2, "trigger": "other", "sampler": "euler", "batch": 1, "rank": 4}
    for name, changes in {"a": {}, "b": other, "c": {"data": str(fewer)}}.items():
        run = runs.create(settings.changed(name=name, **changes), outputs)
        lines = [event.line() for event in train(run, run.settings())]
        run.events_file.write_text("\n".join([*lines, ""]), "utf-8")
    return outputs


@pytest.fixture
def outputs(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "outputs")


def compared(capsys, outputs, *arguments):
    assert main(["compare", *arguments, *PROMPTS, "--outputs", str(outputs), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, outputs, *arguments):
    assert main(["compare", *arguments, "--outputs", str(outputs), "--json"]) == 2
    return json.loads(capsys.readouterr().out)


def test_two_runs_are_judged_alike_and_compared(outputs, tmp_path, capsys, monkeypatch):
    taste = classifier(tmp_path / "taste", ["score"], [6.5])
    for _ in judging.judge(runs.find("b", outputs), ("a dog", "a boat"), steps=(1,)):  # under conditions of its own
        pass
    before = judgements.judged(runs.find("b", outputs))

    found = compared(capsys, outputs, "a", "b@1", "--with", str(taste), "-o", str(tmp_path / "sheet.png"))
    a, b = found["runs"]
    assert (a["name"], b["name"]) == ("a@2", "b@1") and found["prompts"] == ["a cat", "a house"]
    assert found["settings"] == {
        "trigger": ["discstyle", "other"], "seed": ["0", "5"], "rank": ["2", "4"], "learning_rate": ["0.01", "0.02"],
        "batch": ["2", "1"], "sampler": [found["settings"]["sampler"][0], "euler"],
    }  # fmt: skip
    assert [one["states"][0]["pictures_seen"] for one in (a, b)] == [4, 1]
    assert b["states"][0]["bytes"] > 0 and b["states"][0]["parameters"] > a["states"][0]["parameters"]
    assert a["taste score"][0] == b["taste score"][0] == 6.5 and found["training"] == {"taste score": 6.5}
    (difference,) = found["differences"]
    assert difference["style"][0] == pytest.approx(b["style"][0] - a["style"][0])
    assert difference["style"][1] <= difference["style"][0] <= difference["style"][2]
    assert found["verdicts"][0].startswith(("The styles of a@2 and b@1", "b@1 has"))
    assert found["same_pictures"] is True
    assert judgements.judged(runs.find("b", outputs)) == before, "what it was judged as has changed"

    with Image.open(tmp_path / "sheet.png") as sheet:
        assert json.loads(sheet.text[KEY])["runs"] == found["runs"]
        assert sheet.width > 2 * 64 and sheet.height > 4 * 64

    monkeypatch.setattr(Bench, "_draw", lambda *_: pytest.fail("something was drawn again"))
    again = compared(capsys, outputs, "a", "b@1")
    assert again["runs"][1]["style"] == b["style"]
    assert again["sheet"] == str(outputs / "compare-a-b-2.webp") or again["sheet"].endswith(".webp")
    with Image.open(again["sheet"]) as sheet:
        assert json.loads(sheet.getexif()[0x010E])["runs"] == again["runs"]


def test_what_a_run_was_judged_as_is_taken_and_groups_are_averaged(outputs, capsys, monkeypatch):
    run = runs.find("a", outputs)
    for _ in judging.judge(run, ("a cat", "a house")):
        pass
    monkeypatch.setattr(Bench, "_draw", lambda *_: pytest.fail("something was drawn again"))
    group, one, other = compared(capsys, outputs, "a@1,a@2", "a@1", "a@2")["runs"]
    assert [one["style"][0], other["style"][0]] == [known.style.value for known in judgements.judged(run)]
    assert group["name"] == "a@1, a@2" and len(group["states"]) == 2
    assert group["style"][0] == pytest.approx((one["style"][0] + other["style"][0]) / 2)


def test_other_pictures_are_measured_against_their_own(outputs, capsys):
    assert main(["compare", "a", "c", *PROMPTS, "--outputs", str(outputs)]) == 0
    told = capsys.readouterr().out
    lines = told.splitlines()
    assert lines[0].split() == ["a@2", "c@2"]
    assert lines[1].startswith("style, %") and lines[1].count("[") == 2 and lines[2].count("[") == 1
    assert any(line.split() == ["pictures", "seen", "4", "4"] for line in lines)
    assert "data" in told.split("Settings that differ")[1]
    assert "Each style is measured against the run's own" in told and "to keep" not in told


def test_mistakes(outputs, capsys):
    for names in (["a"], ["a", ","]):
        assert "nothing to compare with" in refused(capsys, outputs, *names)["error"]["what"]
    for command in (["compare", "a", "b"], ["judge", "a"]):
        for prompts, what in ((["a cat"], "with one prompt"), (["a cat", "\udcff"], "not valid Unicode")):
            asked = [*command, *(f"--prompt={one}" for one in prompts), "--outputs", str(outputs), "--json"]
            assert main(asked) == 2 and what in json.loads(capsys.readouterr().out)["error"]["what"]
    assert "no run named 'x'" in refused(capsys, outputs, "a", "x")["error"]["what"]
    assert "no saved state of step 3" in refused(capsys, outputs, "a", "b@3")["error"]["what"]
    assert "no PNG or WebP" in refused(capsys, outputs, "a", "b", "-o", "x.jpg")["error"]["what"]
    other = runs.find("b", outputs)
    text = other.settings_file.read_text("utf-8")
    other.settings_file.write_text(text.replace('prediction = "auto"', 'prediction = "v"'), "utf-8")
    told = refused(capsys, outputs, "a", "b")["error"]
    assert "different base models: prediction is auto and v" in told["what"] and "one base model" in told["do"]


def test_one_that_is_stopped_says_so(outputs, capsys, monkeypatch):
    monkeypatch.setattr(side_by_side, "judge", Mock(side_effect=Cancelled))
    assert main(["compare", "a", "b", *PROMPTS, "--outputs", str(outputs), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["what"] == "The comparison was stopped."


def test_the_trials_of_a_study_are_compared_by_what_differs(capsys, outputs, settings):
    """Those that have finished, with what each costs."""
    sweep = space.checked({"axes": {"method": ["lora", "full", "dora"]}}, "my.toml")
    made = study.create(StudyPlan(sweep=sweep, settings=settings.flat()), "methods-discs", outputs)
    trials = [Trial(number, TrialState.FINISHED, {"method": name}) for number, name in ((1, "lora"), (2, "full"))]
    for trial in trials:
        shutil.copytree(outputs / "a", made.run(trial.number).folder)
    made.note(trials[:1])
    error = refused(capsys, outputs, "methods-discs")["error"]
    assert "fewer than two finished trials" in error["what"] and "app.py sweep methods-discs" in error["do"]
    made.note([*trials, Trial(3, TrialState.RUNNING, {"method": "dora"})])
    found = compared(capsys, outputs, "methods-discs")
    assert [one["name"] for one in found["runs"]] == ["LoRA", "Full fine-tuning"]
    [first, _] = (one["states"][0] for one in found["runs"])
    assert first["run"] == "methods-discs-1" and first["memory"] > first["bytes"] > 0
