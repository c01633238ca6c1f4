"""How pictures are drawn, as one value: from settings, options and what inherits it."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.jobs.image_spec import ImageSpec
from lora_studio.sampling.axes import Axis, Grid
from lora_studio.sampling.image_settings import FromImage, Hires, ImageSettings


def test_its_defaults_are_those_of_the_settings():
    keys = {"steps": "preview_steps"}
    plain = ImageSettings()
    for name in set(ImageSettings.model_fields) - {"width", "height", "hires"}:
        assert getattr(plain, name) == SPECS[keys.get(name, name)].default, name


def test_it_takes_what_others_say_under_the_same_names():
    options = SimpleNamespace(sampler="lcm", steps=6, prompt="a cat", folder=".")
    assert ImageSettings.of(options) == ImageSettings(sampler="lcm", steps=6)
    previews = Settings(preview_steps=12, guidance=4, negative="blur", sampler="euler", prompt_weights=False).previews
    assert ImageSettings.of_previews(previews, 256) == ImageSettings(
        steps=12, guidance=4, negative="blur", sampler="euler", prompt_weights=False, width=256, height=256
    )


def test_specs_and_grids_are_such_settings_with_more():
    how = {"steps": 9, "hires": Hires(scale=1.5), "width": 64}
    assert ImageSettings.of(ImageSpec(prompt="p", seed=3, **how)) == ImageSettings(**how)
    grid = Grid(x=Axis("seed", (1, 2)), **how)
    assert ImageSettings.of(grid) == ImageSettings(**how, prompt_weights=False), "as sheets of earlier versions"
    assert Grid.model_validate_json(grid.model_dump_json()) == grid


def test_each_of_them_is_another_picture():
    """A change of the form shows the picture before."""
    changes = {"negative": "x", "steps": 9, "guidance": 2.0, "guidance_rescale": 0.5, "sampler": "ddim", "width": 64}
    changes |= {"height": 64, "prompt_weights": False, "hires": Hires(), "count": 2, "seed": 9}
    changes |= {"start": FromImage(path="p", sha256="0")}
    assert set(ImageSettings.model_fields) <= set(changes)
    keys = [ImageSpec(prompt="p", **{name: value}).key() for name, value in changes.items()]
    assert len({ImageSpec(prompt="p").key(), *keys}) == len(changes) + 1
    assert ImageSpec(prompt="p", first=5, forming=True).key() == ImageSpec(prompt="p").key(), "only how it is shown"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Hires, {"scale": 0.5}),
        (Hires, {"scale": 5}),
        (Hires, {"strength": 1.5}),
        (FromImage, {"path": "p", "sha256": "0", "strength": -1}),
        (ImageSettings, {"steps": 0}),
        (ImageSettings, {"guidance": float("nan")}),
        (ImageSettings, {"stepz": 3}),
    ],
)
def test_what_makes_no_sense_is_refused(kind, values):
    with pytest.raises(ValidationError):
        kind(**values)


def test_it_needs_no_torch():
    line = (
        "import sys, lora_studio.sampling.image_settings, lora_studio.jobs.image_spec; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", line]).returncode == 0
