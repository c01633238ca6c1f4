"""Clip skip of SD 1.x, against diffusers' own: what it calls 1 is what A1111, and so everyone else, calls 2."""

import diffusers
import pytest
import torch

from lora_studio import models
from lora_studio.adapters import Adapter
from lora_studio.errors import SettingsError
from lora_studio.families.registry import named
from lora_studio.models import clip_skip
from tests.models import tiny


@pytest.fixture(scope="module")
def skipping(tiny_folder):
    return models.load(str(tiny_folder("sd1")), clip_skip=2)


def test_features_are_those_of_diffusers(tiny_folder, skipping):
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(str(tiny_folder("sd1")), local_files_only=True)
    # diffusers asks for this attribute, which transformers 5 no longer has
    pipeline.text_encoder.__dict__["text_model"] = pipeline.text_encoder
    plain = models.load(str(tiny_folder("sd1")))
    with torch.no_grad():
        for base, theirs in ((plain, None), (skipping, 1)):
            expected, _ = pipeline.encode_prompt("a cat, ink", "cpu", 1, False, clip_skip=theirs)
            assert torch.equal(base.encode_text(["a cat, ink"])["hidden"], expected)
    assert plain.fingerprint != skipping.fingerprint


def test_the_setting_comes_before_the_file_and_the_file_before_one():
    family = named("sd1")
    assert [family.clip_skip(wanted, said) for wanted, said in [(0, 0), (0, 2), (1, 2), (2, 1), (0, 5)]] == [
        *(1, 2, 1, 2, 1)
    ]


@pytest.mark.parametrize("name", ["sd2", "sdxl"])
def test_families_that_are_always_read_at_one_layer_refuse_it_by_name(name):
    family = named(name)
    with pytest.raises(SettingsError, match=rf"{family.title} has no clip skip 2.*Set clip_skip to 0"):
        family.clip_skip(2, 0)
    assert [family.clip_skip(wanted, said) for wanted, said in [(0, 0), (0, 2), (1, 2)]] == [1, 1, 1]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ({}, 0),
        ({"ss_clip_skip": "None"}, 0),
        ({"ss_clip_skip": "2"}, 2),
        ({"modelspec.encoder_layer": "2"}, 2),
        ({"ss_clip_skip": "None", "modelspec.encoder_layer": "1"}, 1),
        ({"ss_clip_skip": "²"}, 0),
        ({"ss_clip_skip": "-2"}, 0),
    ],
)
def test_what_headers_declare(header, value):
    assert clip_skip.declared(header) == value


def test_a_checkpoint_is_read_as_its_header_says(tmp_path):
    file = tiny.checkpoint(tmp_path / "anime.safetensors", "sd1", metadata={"modelspec.encoder_layer": "2"})
    assert models.load(str(file)).clip_skip == 2 and models.load(str(file), clip_skip=1).clip_skip == 1


def test_texts_are_read_as_the_adapters_were_trained(skipping):
    two, one, none = (Adapter({}, {"ss_clip_skip": value}) for value in ("2", "1", "None"))
    settled = [("two", two), ("none", none)]
    assert clip_skip.settle(skipping, 0, settled[:1]) == [] and skipping.clip_skip == 2
    [said] = clip_skip.settle(skipping, 0, settled)
    assert said.what == "none states no clip skip, and is drawn with 2 as two was trained." and skipping.clip_skip == 2
    assert clip_skip.settle(skipping, 2, settled) == [], "it was chosen"
    assert clip_skip.settle(skipping, 0, [("one", one), ("none", none)]) == [] and skipping.clip_skip == 1
    [said] = clip_skip.settle(skipping, 1, settled)
    assert said.what == "two was trained with clip skip 2, and is drawn with 1."
    assert [said.what[:3] for said in clip_skip.settle(skipping, 0, [("two", two), ("one", one)])] == ["two"]
    assert clip_skip.settle(skipping, 2, []) == [] and skipping.clip_skip == 2
