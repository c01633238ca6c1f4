"""All that is known of families is known by them; who asks gets the same answers everywhere."""

import json
import re
import subprocess
import sys

import pytest

from lora_studio.adapters import detect
from lora_studio.config.specs import SPECS
from lora_studio.families import registry
from lora_studio.starter import MODEL

FAMILIES = registry.FAMILIES
PUBLISHED = [family for family in FAMILIES if family.name == family.configs]
"""The others are narrow variants of them."""


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
class TestEveryFamily:
    def test_owns_its_own_folder_and_no_others(self, family):
        for other in PUBLISHED:
            assert family.owns_folder(other.config(other.denoiser)) == (family is other)

    def test_has_all_modules_of_its_own_models_alone(self, family):
        for other in PUBLISHED:
            fitting = sum(family.fits(path, shape) for path, shape in other.modules.items())
            assert (fitting == len(other.modules)) == (family is other)

    def test_knows_layers_for_every_choice_of_targets(self, family):
        assert set(family.targets) == set(family.text_targets) == set(SPECS["targets"].choices)
        counts = []
        for choice in SPECS["targets"].choices:
            wanted = re.compile(family.targets[choice])
            counts.append(sum(bool(wanted.search(path)) for path in family.modules))
        assert counts == sorted(set(counts)) and counts[0] > 0, "each choice means more layers than the one before"

    def test_names_blocks_that_its_models_have(self, family):
        for prefixes in family.blocks.values():
            for prefix in prefixes:
                assert any(path.startswith(f"{prefix}.") for path in family.modules), prefix

    def test_is_known_again_by_the_marks_that_its_adapters_get(self, family):
        for noise in (True, False):
            version, architecture = family.marks(noise)
            assert registry.claimed(version, "") == family.name
            assert noise and family.name == "sd2" or registry.claimed("", f"{architecture}/lora") == family.name


def test_sdxl_names_its_style_content_and_layout_blocks():
    assert registry.named("sdxl").blocks == {
        "style": ("unet.up_blocks.0.attentions.1",),
        "content": ("unet.up_blocks.0.attentions.0",),
        "layout": ("unet.down_blocks.2.attentions.1",),
    }


def test_names():
    assert registry.title_of("sdxl") == "Stable Diffusion XL" and registry.title_of("flux") == "an unknown model"
    assert registry.named("unknown") is None and registry.claimed("", "") == ""


def test_no_two_families_share_a_name():
    for values in zip(*((family.name, family.title) for family in FAMILIES), strict=True):
        assert len(set(values)) == len(values)


FIRST = {"block_out_channels": [64, 96, 128, 160], "cross_attention_dim": 192, "layers_per_block": 2}
"""The UNet of both built-in starters; the present one's configuration has a name beside it."""


@pytest.mark.parametrize(
    "config, family",
    [
        (FIRST, "starter1"),
        (FIRST | {"_name_or_path": "lora_studio_starter_2"}, "starter"),
        (FIRST | {"cross_attention_dim": 256}, "starter"),
        (FIRST | {"cross_attention_dim": 768}, "sd1"),
    ],
)
def test_the_first_starter_is_told_from_the_present_one(config, family):
    assert registry.owner({"unet": config}).name == family


def test_the_built_in_model_is_the_present_starter():
    config = json.loads((MODEL / "unet" / "config.json").read_text())
    assert registry.owner({"unet": config}).name == "starter" and registry.title_of("starter") in registry.titles()
    assert registry.title_of("starter1") not in registry.titles()


@pytest.mark.parametrize(
    "version, architecture, family",
    [
        ("lora_studio_starter", "lora-studio-starter/lora", "starter1"),
        ("", "lora-studio-starter/lora", "starter1"),
        ("lora_studio_starter_2", "lora-studio-starter-2/lora", "starter"),
        ("", "lora-studio-starter-2/lora", "starter"),
    ],
)
def test_adapters_of_both_starters_are_told_apart_by_their_headers(version, architecture, family):
    """Their layers have the same names and shapes."""
    path = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    texts = {"ss_base_model_version": version, "modelspec.architecture": architecture}
    assert detect.family({path: (160, 192)}, texts) == family and detect.family({path: (160, 192)}) == "starter"


def test_only_a_family_and_its_successor_are_apart():
    names = [family.name for family in FAMILIES]
    found = {(one, other) for one in names for other in names if registry.apart(one, other)}
    assert found == {("starter1", "starter"), ("starter", "starter1")}


def test_families_need_no_torch():
    code = """
import sys
from lora_studio.adapters import detect
path = "unet.up_blocks.0.attentions.1.transformer_blocks.9.attn2.to_k"
assert detect.family({path: (1280, 2048)}) == "sdxl" and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
