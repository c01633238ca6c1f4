"""Sliders and erased concepts: a run without pictures learns a direction from pairs of prompts."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lora_studio import adapters, cli
from lora_studio.adapters import recipe
from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.dataset import slider_pairs
from lora_studio.errors import DatasetError, SettingsError
from lora_studio.events import LayersSeen, PreviewReady, Started, StepDone, Validated, Warned
from lora_studio.models import inject
from lora_studio.runs import branching
from lora_studio.sweeps import space, study
from lora_studio.training import memory, prepare, sliders
from lora_studio.training.batches import Batch, Contrast, Texts
from lora_studio.training.loop import train
from tests.benchmarks.memory import shapes
from tests.training.saved import card
from tests.training.test_loop import assert_same, collect, of, state_tensors, tensors
from tests.training.test_preflight import measured
from tests.training.test_preservation import linear
from tests.training.test_resume import stopped_after
from tests.training.test_stepper import prepared, quiet

PAIR = '[[pair]]\nprompt = "{0}"\ntowards = "a huge {0}"\naway = "a tiny {0}"\n'
SIZE = PAIR.format("house") + PAIR.format("cat") + "weight = 2\n" + PAIR.format("tree")


@pytest.fixture
def sliding(settings, tmp_path):
    """Settings of a slider on the tiny model; a function of the file's text."""

    def made(text: str = SIZE, **more) -> Settings:
        path = tmp_path / "size.toml"
        path.write_text(text, "utf-8")
        rest = {"trigger": "", "name": "", "preview_prompts": [], "slider_steps": 2}
        rest |= {key: SPECS[key].default for key in ("max_upscale", "validation_share", "validate_every")}
        return settings.changed(data=str(path), **rest | more)

    return made


def texts(number: float) -> Texts:
    return Texts({"hidden": torch.tensor([[number]])}, [f"prompt {number}"], 0)


def test_the_target_is_the_bases_own_answer_moved_by_what_the_prompts_differ_in():
    """Answers of 2, 6 and 4 to the prompts 1, 3 and 2: 2 ± 3 (6 − 4). To erase 3, with 1 in its place, the third is the
    prompt that is trained: 2 − 3 (6 − 2), at weight 1 alone.
    """
    base = SimpleNamespace(predict=lambda noisy, timesteps, text, sizes: 2 * text["hidden"].view(1, 1, 1, 1))
    batch = Batch(*[torch.zeros(1, 1, 1, 1)] * 2, torch.tensor([0]), torch.zeros(1, 6), {}, ["prompt 1.0"])
    found = {"neutral": texts(1.0), "towards": texts(3.0), "away": texts(2.0)}
    read = lambda one: one.features  # noqa: E731
    assert sliders.targets(base, batch, Contrast(found, 1.0, 0), 3.0, read).flatten().tolist() == [8.0, -4.0]
    erased = {"neutral": texts(1.0), "towards": texts(1.0), "away": texts(3.0)}
    batch = batch._replace(captions=["prompt 3.0"])
    assert sliders.targets(base, batch, Contrast(erased, 1.0, 0), 3.0, read).flatten().tolist() == [-10.0]


def test_a_scaled_adapter_changes_layers_the_other_way_and_is_as_before_afterwards():
    model = linear(0.5)
    base = SimpleNamespace(models={"unet": model}, start=None, loaded=None, words=SimpleNamespace(without=nullcontext))
    module, x = model[0], torch.ones(1, 1)
    module.scaling = {"style": module.scaling["default"]}
    for name in ("lora_A", "lora_B", "lora_dropout"):
        setattr(module, name, type(getattr(module, name))({"style": getattr(module, name)["default"]}))
    module.set_adapter("style")
    with inject.scaled(base, -1.0):
        assert model(x).item() == 1.5
    assert model(x).item() == 2.5


def test_every_pair_comes_up_once_an_epoch_and_the_weights_take_turns(new_run, sliding):
    """Batches of two of three pairs: three of them are two epochs."""
    session = prepared(new_run(quiet(sliding())))
    drawn = [session.data.batches.draw(number) for number in range(6)]
    assert sorted(text for batch in drawn[:3] for text in batch.captions) == sorted(["house", "cat", "tree"] * 2)
    assert [batch.contrast.weight for batch in drawn] == [1, -1, 1, -1, 1, -1]
    assert {batch.contrast.steps for batch in map(session.data.batches.draw, range(20))} == {0, 1}
    first, again = drawn[0], session.data.batches.draw(0)
    assert torch.equal(first.noise, again.noise) and first.noise.shape == (2, 4, 8, 8) and not first.x0.any()
    cat = first.captions.index("cat") if "cat" in first.captions else None
    assert cat is None or first.weights[cat].item() == 2
    own = session.data.cache.of_captions(["a huge house"])["hidden"][0]
    places = [(b, b.captions.index("house")) for b in drawn if "house" in b.captions]
    assert all(torch.equal(b.contrast.texts["towards"].features["hidden"][row], own) for b, row in places)
    moved = first.replaced({name: tensor + 1 for name, tensor in first.tensors().items()})
    assert torch.equal(
        moved.contrast.texts["away"].features["hidden"], first.contrast.texts["away"].features["hidden"] + 1
    )


def moved(session, prompt: str, towards: str, away: str) -> tuple[float, float]:
    """How far the answer to ``prompt`` moves from ``away`` to ``towards`` with the adapter at 1 and at −1: a share of
    the distance of the base model's own answers to them.
    """
    base, noise = session.base, torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    timesteps = torch.full((8,), 500)

    @torch.no_grad()
    def answer(text: str):
        return base.predict(noise, timesteps, session.data.cache.of_captions([text] * 8))

    with inject.without_adapter(base):
        plain, direction = answer(prompt), answer(towards) - answer(away)
    found = []
    for weight in (1.0, -1.0):
        with inject.scaled(base, weight):
            found.append(((answer(prompt) - plain) * direction).sum() / direction.square().sum())
    return float(found[0]), float(found[1])


LEARNING = {"steps": 15, "rank": 4, "alpha": 4, "learning_rate": 4e-3, "targets": "attention+ff", "warmup": 0}


@pytest.mark.parametrize("prediction", ["epsilon", "v", "flow"])
def test_what_is_learned_moves_the_answer_along_the_pair_at_1_and_back_at_minus_1(
    new_run, sliding, deep_base, prediction
):
    """On a deep model: a shallow one learns no opposite in a few steps."""
    run = new_run(quiet(sliding(prediction=prediction, base=str(deep_base), **LEARNING)))
    collect(run)
    forth, back = moved(prepared(run), "house", "a huge house", "a tiny house")
    assert forth > 0.2 and back < -0.2


def test_an_erased_concept_is_answered_more_like_its_absence(new_run, sliding):
    run = new_run(quiet(sliding('[[pair]]\nerase = "a huge house"\nprompt = "house"\n', **LEARNING)))
    collect(run)
    forth, _ = moved(prepared(run), "a huge house", "house", "a huge house")
    assert forth > 0.2


def test_a_run_without_pictures_from_file_to_adapter(new_run, sliding):
    """It says what it trains on, draws the prompts that it trains, and validates nothing."""
    run = new_run(sliding())
    seen = collect(run)
    (started,) = of(Started, seen)
    assert (run.name, started.pairs, started.images, started.validation_images) == ("size", 3, 0, 0)
    assert of(Warned, seen) == of(Validated, seen) == []
    assert [one.prompt for one in of(PreviewReady, seen) if one.base] == ["house", "cat", "tree"]
    assert [event.step for event in of(StepDone, seen)] == [1, 2, 3, 4]
    made = adapters.read(run.adapter_file)
    assert any(factors.up.abs().max() > 0 for factors in made.factors.values())
    told = recipe.read(made.metadata)
    assert [(one.trained, one.towards, one.away, one.weight) for one in told.pairs] == [
        ("house", "a huge house", "a tiny house", 1),
        ("cat", "a huge cat", "a tiny cat", 2),
        ("tree", "a huge tree", "a tiny tree", 1),
    ]
    with pytest.raises(DatasetError, match="size was trained on pairs, and there are no pictures"):
        list(prepare.pictures_of(run, run.settings()))


def test_a_resumed_slider_is_the_one_that_was_never_stopped(new_run, sliding):
    """Bit for bit on the CPU, with dropout, which is off while x_t is drawn, and a start that looks at batches."""
    settings = quiet(sliding(dropout=0.3, ema=0.9, accumulate=2, init="eva")).changed(checkpoint_every=1)
    whole, torn = new_run(settings), new_run(settings)
    collect(whole)
    stopped_after(torn, 3)
    seen = collect(torn)
    assert of(Started, seen)[0].first_step == 2 and [event.step for event in of(StepDone, seen)] == [3, 4]
    assert_same(tensors(whole.adapter_file), tensors(torn.adapter_file))
    assert_same(state_tensors(whole), state_tensors(torn))


def test_pairs_that_changed_since_are_told(new_run, sliding):
    run = new_run(quiet(sliding()).changed(checkpoint_every=1))
    stopped_after(run, 2)
    sliding(SIZE.replace("huge cat", "fat cat"))
    told = [event.what for event in of(Warned, collect(run))]
    assert told == ["The pairs changed since this run began: pair 2 has other prompts."]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"method": "dora"}, "a slider also trains at weight −1, which DoRA has no opposite for: set method to lora."),
        ({"train_text": True}, "read by the base model's own text encoders: set train_text to off."),
        ({"learned_tokens": 2}, "no captions to learn a word from: set learned_tokens to 0."),
        ({"trigger": "ink"}, "without a trigger word: leave trigger empty."),
        ({"preserve_weight": 1, "trigger": "ink"}, "prompt pairs have none: set it to 0."),
        ({"epochs": 2}, "set epochs to 0, and steps to the length of the run."),
        ({"evaluate_every": 5}, "set evaluate_every to 0 and keep to last."),
        ({"keep": "best"}, "set evaluate_every to 0 and keep to last."),
    ],
)
def test_what_means_nothing_without_pictures_is_refused(change, told):
    with pytest.raises(SettingsError) as error:
        Settings(data="size.toml").changed(**change)
    assert error.value.what.endswith(told)


def test_settings_of_pictures_are_told_to_have_no_effect_and_those_of_pairs_beside_pictures():
    found = Settings(data="size.toml", caption_dropout=0, flip=True, loss="l1", slider_steps=9, clip_skip=2).ignored()
    assert [one.key for one in found] == ["flip", "loss"], "a dropout of 0 is as wanted"
    (one,) = Settings(data="pictures", slider_steps=9).ignored()
    assert (
        one.what == "Denoising steps has no effect where Pictures is pictures." and one.do == "Set slider_steps to 20."
    )


def test_a_prompt_that_is_cut_is_named(new_run, sliding):
    run = new_run(sliding(PAIR.format("word " * 90), caption_tokens=75))
    events = []
    for event in train(run, run.settings()):
        events.append(event)
        if isinstance(event, Started):
            break
    assert [one.where for one in of(Warned, events)] == ["pair 1"]


def test_an_adapters_recipe_names_its_pairs_and_is_compared_with_a_file(new_run, sliding, capfd):
    run = new_run(quiet(sliding(steps=1)))
    collect(run)
    own, other = run.settings(), run.folder / "other.toml"
    other.write_text(SIZE.replace("huge", "fat"), "utf-8")
    assert cli.main(["recipe", str(run.adapter_file)]) == 0
    shown = capfd.readouterr().out
    assert "# 3 pairs of prompts, 1 steps done" in shown
    lines = shown.partition("# The pairs of prompts, for the file that data names:\n")[2].splitlines()
    copy = run.folder / "copy.toml"
    copy.write_text("\n".join(line.removeprefix("# ") for line in lines), "utf-8")
    assert slider_pairs.read(copy) == slider_pairs.read(Path(run.settings().run.data))
    for data, told in ((own.run.data, []), (other, ["pairs of prompts"])):
        assert cli.main(["check", str(run.adapter_file), "--base", own.run.base, "--data", str(data), "--json"]) == 0
        found = json.loads(capfd.readouterr().out)
        assert [one["what"] for one in found["differences"]] == told and found["unknown"] == []
    assert cli.main(["check", str(run.adapter_file), "--base", own.run.base]) == 0
    assert "the 3 pairs of prompts (name their file with --data)" in capfd.readouterr().out


def test_a_trial_takes_enough_steps_to_know_the_middle_one(sliding, tmp_path):
    """One may draw nothing, and the next for long."""
    seen, found = measured(sliding(), tmp_path / "outputs")
    times = [event.seconds for event in of(StepDone, seen)]
    assert len(times) == 8 and found.copies == 0 and found.previews
    assert found.step_seconds == sorted(later - earlier for earlier, later in zip(times, times[1:], strict=False))[3]


def test_a_file_that_moved_is_asked_for(new_run, sliding):
    run = new_run(sliding())
    settings = run.settings().changed(data="/gone/size.toml")
    with pytest.raises(DatasetError, match="There is no file /gone/size.toml.*resume size --data FILE"):
        branching.require_places(run, settings)
    branching.require_places(run, run.settings())


def test_no_sweep_is_begun_whose_trials_could_not_be_judged(sliding, tmp_path):
    with pytest.raises(SettingsError, match="trials of a sweep are judged by the pictures"):
        study.begin(space.find("methods"), sliding(), tmp_path)


def test_the_estimate_leaves_out_the_vaes_encoder_and_counts_guidance():
    """SDXL in bf16 on a GPU with 128 GiB: what a step keeps is more than what drawing takes, unless a recorded step
    keeps its memory meanwhile.
    """
    shape, room = shapes("sdxl"), 2**37
    with card():
        for recorded in (False, True):
            of_pictures = memory.estimate(Settings(data="pictures", cuda_graph=recorded), shape, "bf16", room)
            of_pairs = memory.estimate(Settings(data="size.toml", cuda_graph=recorded), shape, "bf16", room)
            assert of_pairs.encoding < of_pictures.encoding
            assert (of_pairs.weights, of_pairs.activations) == (of_pictures.weights, of_pictures.activations)
            assert (of_pairs.working > of_pictures.working) == recorded


def test_a_slider_starts_along_its_layers_inputs(new_run, sliding):
    """Those of all passes that draw for it."""
    seen = collect(new_run(sliding(init="eva", steps=1, preview_every=0)))
    assert [(one.what, one.layers) for one in of(LayersSeen, seen)] == [("inputs", 80)]
