"""The modules that are worked out from configurations are those of the real models."""

import json

import pytest
from accelerate import init_empty_weights
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lora_studio import starter
from lora_studio.families import layout, registry
from lora_studio.models import modules, parts
from tests.models import tiny

FAMILIES = ("sd1", "sd2", "sdxl")


def real(family: str, part: str, config: dict) -> dict[str, tuple[int, ...]]:
    made = parts.build(registry.named(family), part, config, "tests")
    return {
        modules.path_of(part, name): modules.weight_shape(module)
        for name, module in made.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_modules_are_those_of_its_published_models(family):
    known = registry.named(family)
    expected = {}
    for part in known.components:
        expected |= real(family, part, known.config(part))
    assert known.modules == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_a_narrow_unets_too(family):
    config = tiny.config(family, "unet") | {"layers_per_block": 1}
    assert layout.unet_modules(config) == real(family, "unet", config)


@pytest.mark.parametrize(("kind", "projected"), [(CLIPTextModel, False), (CLIPTextModelWithProjection, True)])
def test_text_encoders_of_both_kinds(kind, projected):
    config = tiny.config("sdxl", "text_encoder_2")
    with init_empty_weights():
        made = kind(CLIPTextConfig.from_dict(config))
    linear = [name for name, module in made.named_modules() if isinstance(module, nn.Linear)]
    expected = {modules.path_of("text_encoder_2", name) for name in linear}
    assert set(layout.clip_modules("text_encoder_2", config, projected)) == expected


def test_same_shapes():
    assert layout.same((320, 320), (320, 320)) and not layout.same((320, 640), (320, 320))
    assert layout.same((320, 2880), (320, 320, 3, 3)), "LoHa files flatten wide kernels"
    assert not layout.same((320, 320), (320, 320, 1, 1)), "a 1×1 convolution is told from a linear layer"


def test_narrower_shapes():
    assert layout.narrower((4, 160, 3, 3), (4, 320, 3, 3)) and layout.narrower((64, 64), (320, 320, 1, 1))
    assert not layout.narrower((320, 320), (320, 320)) and not layout.narrower((64, 640), (320, 320))


def test_the_starters_file_knows_all_of_its_own_unet():
    """Or a run that trains its convolutions ends without an adapter: the file has a layer that no family has."""
    family = registry.named("starter")
    config = json.loads((starter.MODEL / "unet" / "config.json").read_text("utf-8"))
    shapes = layout.unet_modules(config)
    assert "unet.down_blocks.3.resnets.0.conv_shortcut" in shapes
    assert [path for path, shape in shapes.items() if not family.fits(path, shape)] == []
