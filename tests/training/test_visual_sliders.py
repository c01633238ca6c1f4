"""Sliders of picture pairs: weight 1 leads to one picture of a pair, and −1 to the other."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from lora_studio import adapters, cli
from lora_studio.adapters import recipe
from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.dataset import slider_pairs
from lora_studio.events import PreviewReady, Started, StepDone, Validated, Warned
from lora_studio.models import inject
from lora_studio.training import sliders
from lora_studio.training.batches import Batch
from lora_studio.training.loop import train
from tests.training.test_loop import assert_same, collect, of, state_tensors, tensors
from tests.training.test_resume import stopped_after
from tests.training.test_stepper import prepared, quiet

NAMES = ("house", "cat", "tree")


@pytest.fixture
def lights(settings, tmp_path):
    """Settings of a slider from dark to light, of three pairs on the tiny model."""
    for number, name in enumerate(NAMES):
        for folder, light in (("light", 200), ("dark", 30)):
            (tmp_path / "lights" / folder).mkdir(parents=True, exist_ok=True)
            drawn = Image.new("RGB", (64, 64), (light, light, light))
            drawn.paste((20 + 60 * number, 90, 160), (8, 8, 30, 30))
            drawn.save(tmp_path / "lights" / folder / f"{name}.png")
    pair = '[[pair]]\nprompt = "{0}"\ntowards_picture = "light/{0}.png"\naway_picture = "dark/{0}.png"\n'
    file = tmp_path / "lights" / "light.toml"
    file.write_text("".join(pair.format(name) for name in NAMES) + "weight = 2\n", "utf-8")

    def made(**more) -> Settings:
        rest = {"trigger": "", "name": "", "preview_prompts": []}
        rest |= {key: SPECS[key].default for key in ("max_upscale", "validation_share", "validate_every")}
        return settings.changed(data=str(file), **rest | more)

    return made


def test_each_weight_is_shown_its_own_picture_and_learns_its_own_target():
    """Shown 2 and 5 and asked for 1 and 9, by a model that answers what it is shown: errors of 1 and 4, squared."""
    base = SimpleNamespace(predict=lambda noisy, timesteps, text, sizes: noisy)
    batch = Batch(*[torch.zeros(1, 1, 1, 1)] * 2, torch.tensor([0]), torch.zeros(1, 6), {}, ["a"])
    found = batch._replace(
        shown=torch.tensor([2.0, 5.0]).view(2, 1, 1, 1, 1),
        targets=torch.tensor([1.0, 9.0]).view(2, 1, 1, 1, 1),
        weights=torch.ones(1, 1, 1, 1),
    )
    assert [sliders.losses(base, found, {}, which).item() for which in (0, 1)] == [1.0, 16.0]


def test_both_pictures_of_a_pair_get_the_same_noise(new_run, lights):
    """Batches of two of three pairs. Where noise is predicted, both targets are the noise."""
    session = prepared(new_run(quiet(lights())))
    drawn = [session.data.batches.draw(number) for number in range(4)]
    assert {text for batch in drawn[:2] for text in batch.captions} == set(NAMES)
    for batch in drawn:
        assert torch.equal(batch.targets[0], batch.noise) and torch.equal(batch.targets[1], batch.noise)
        samples = [NAMES.index(text) for text in batch.captions]
        assert batch.weights.flatten().tolist() == [2.0 if one == 2 else 1.0 for one in samples]
        apart = batch.shown[0] - batch.shown[1]
        assert (apart.abs().amax(dim=(1, 2, 3)) > 0.01).all(), "light and dark"
    again = session.data.batches.draw(0)
    assert torch.equal(drawn[0].shown, again.shown) and torch.equal(drawn[0].timesteps, again.timesteps)


def test_what_is_learned_suits_one_picture_at_1_and_the_other_at_minus_1(new_run, lights):
    """More than with the weights exchanged, and than without the adapter; over eight batches."""
    more = {"steps": 20, "rank": 4, "alpha": 4, "learning_rate": 1e-2, "targets": "attention+ff", "warmup": 0}
    run = new_run(quiet(lights(**more)))
    collect(run)
    session = prepared(run)
    batches = [session.data.batches.draw(number) for number in range(8)]

    @torch.no_grad()
    def loss(towards: float, away: float) -> float:
        total = 0.0
        for which, weight in enumerate((towards, away)):
            with inject.scaled(session.base, weight):
                total += sum(sliders.losses(session.base, one, one.text, which).mean().item() for one in batches)
        return total

    assert loss(1, -1) < min(loss(-1, 1), loss(0, 0))


def test_a_run_of_picture_pairs_from_file_to_adapter(new_run, lights, capfd):
    run = new_run(lights())
    seen = collect(run)
    (started,) = of(Started, seen)
    assert (run.name, started.pairs, started.images, started.validation_images) == ("light", 3, 6, 0)
    assert of(Warned, seen) == of(Validated, seen) == []
    assert [one.prompt for one in of(PreviewReady, seen) if one.base] == [*NAMES]
    assert [event.step for event in of(StepDone, seen)] == [1, 2, 3, 4]
    told = recipe.read(adapters.read(run.adapter_file).metadata)
    assert [one.pictures for one in told.pairs] == [(f"light/{name}.png", f"dark/{name}.png") for name in NAMES]
    assert len(told.images) == 6 and told.tags.keys() == set(NAMES)
    assert cli.main(["recipe", str(run.adapter_file)]) == 0
    shown = capfd.readouterr().out
    assert "# 3 pairs of pictures, 4 steps done" in shown
    lines = shown.partition("# The pairs of pictures, for the file that data names:\n")[2].splitlines()
    copy = run.folder / "copy.toml"
    copy.write_text("\n".join(line.removeprefix("# ") for line in lines), "utf-8")
    assert slider_pairs.read(copy) == slider_pairs.read(run.folder.parent.parent / run.settings().run.data)


def test_a_resumed_slider_of_pictures_is_the_one_that_was_never_stopped(new_run, lights):
    settings = quiet(lights(dropout=0.3, ema=0.9, accumulate=2)).changed(checkpoint_every=1)
    whole, torn = new_run(settings), new_run(settings)
    collect(whole)
    stopped_after(torn, 2)
    assert of(StepDone, collect(torn))[-1].step == 4
    assert_same(tensors(whole.adapter_file), tensors(torn.adapter_file))
    assert_same(state_tensors(whole), state_tensors(torn))


def test_pictures_and_pairs_that_changed_since_are_told(new_run, lights, tmp_path):
    run = new_run(quiet(lights()).changed(checkpoint_every=1))
    stopped_after(run, 2)
    Image.new("RGB", (64, 64), "white").save(tmp_path / "lights" / "light" / "cat.png")
    file = tmp_path / "lights" / "light.toml"
    text = file.read_text()
    file.write_text(text.replace("light/tree", "x").replace("dark/tree", "light/tree").replace('"x', '"dark/tree'))
    told = next(event.what for event in train(run, run.settings()) if isinstance(event, Warned))
    assert told == (
        "The pairs changed since this run began: light/cat.png is a different picture. pair 3 has other pictures."
    )
