"""Recipes in pictures: other programs read them, and what others write is taken over or named."""

import json
import time

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lora_studio.diffusion import samplers
from lora_studio.errors import SettingsError
from lora_studio.sampling import infotext, picture_file
from lora_studio.sampling.image_settings import Hires
from lora_studio.sampling.picture_recipe import PictureRecipe, StartedFrom, UsedAdapter

SHA = "0123456789abcdef" * 4
RECIPE = PictureRecipe(
    prompt="anastyle, a (red:1.2) cat,\nasleep",
    negative="text, frame",
    seed=7,
    steps=12,
    guidance=4.5,
    sampler="euler_a",
    width=512,
    height=768,
    base="dream, v2.safetensors",
    base_sha256=SHA,
    clip_skip=2,
    adapters=(UsedAdapter(name="ana", weight=0.8, tensors=SHA), UsedAdapter(name="ink wash", weight=-0.25)),
    hires=Hires(scale=1.5, strength=0.4, steps=8),
    version="0.1.0",
)
TEXT = """anastyle, a (red:1.2) cat,
asleep <lora:ana:0.8> <lora:ink wash:-0.25>
Negative prompt: text, frame
Steps: 12, Sampler: Euler a, CFG scale: 4.5, Seed: 7, Size: 512x768, Model hash: 0123456789, Model: "dream, v2", \
Denoising strength: 0.4, Clip skip: 2, RNG: CPU, Hires upscale: 1.5, Hires steps: 8, \
Lora hashes: "ana: 0123456789ab", Version: LoRA Studio 0.1.0"""
OF_A1111 = """masterpiece, cat <lora:ana:0.7>, sitting
Negative prompt: lowres,
bad hands
Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 4294967296, Face restoration: CodeFormer, Size: 640x448, \
Model hash: 6ce0161689, Model: v1-5-pruned, Clip skip: 2, ControlNet 0: "Module: canny, Weight: 1.0", \
Civitai resources: [{"type": "lora", "weight": 0.7}], Lora hashes: "ana: 0123456789ab", Version: v1.9.4"""


def test_a_recipe_is_written_as_others_read_it():
    assert infotext.write(RECIPE) == TEXT


def test_what_is_written_is_read_again():
    stated = infotext.read(TEXT)
    values = PictureRecipe(**stated.values)
    for key in ("prompt", "negative", "seed", "steps", "guidance", "sampler", "width", "height", "clip_skip", "hires"):
        assert getattr(values, key) == getattr(RECIPE, key), key
    assert [(one.name, one.weight, one.tensors) for one in values.adapters] == [
        ("ana", 0.8, SHA[:12]),
        ("ink wash", -0.25, ""),
    ]
    assert values.base == RECIPE.base and SHA.startswith(values.base_sha256) and not stated.left and not stated.own


def test_what_a1111_wrote_is_taken_over_and_the_rest_is_named():
    """A field is filled with a guess, or something that the studio cannot do is lost without a word."""
    stated = infotext.read(OF_A1111)
    assert stated.values["prompt"] == "masterpiece, cat, sitting"
    assert stated.values["negative"] == "lowres,\nbad hands"
    assert stated.values["sampler"] == "dpm++" and stated.values["seed"] == 4294967296
    assert [(one["name"], one["weight"]) for one in stated.values["adapters"]] == [("ana", 0.7)]
    assert stated.left == {
        "Schedule type": "Karras",
        "Face restoration": "CodeFormer",
        "ControlNet 0": "Module: canny, Weight: 1.0",
        "Civitai resources": '[{"type": "lora", "weight": 0.7}]',
    }
    assert "start" not in stated.values and "guidance_rescale" not in stated.values, "what it does not say stays away"


@pytest.mark.parametrize("sampler", samplers.NAMES)
def test_every_sampler_is_read_again(sampler):
    stated = infotext.read(infotext.write(PictureRecipe(sampler=sampler, width=64, height=64)))
    assert stated.values["sampler"] == sampler and stated.left == {}


def test_a_strength_without_an_upscale_is_that_of_a_start():
    stated = infotext.read("a cat\nSteps: 9, Seed: 1, Sampler: Restart, Denoising strength: 0.6")
    assert stated.values["start"] == StartedFrom(strength=0.6).model_dump() and stated.left == {"Sampler": "Restart"}


@pytest.mark.parametrize("text", ["", "a cat", "a cat\nSteps: 20", "{", "a: b, c: d", '\x00: "', "x: [" * 200])
def test_a_text_without_settings_tells_nothing(text):
    assert infotext.read(text).values == {}


@pytest.mark.parametrize(
    "hostile",
    [
        "cat" + " " * 90_000 + "x\nSteps: 1, Sampler: Euler, Seed: 3",
        "cat\nSteps: 1, Sampler: Euler, Seed: 3, a" + " " * 90_000 + "x",
        "<lora:a:" + "1" * 90_000 + "\nSteps: 1, Sampler: Euler, Seed: 3",
    ],
    ids=["prompt", "pair", "weight"],
)
def test_the_time_that_a_text_takes_grows_with_its_length_alone(hostile):
    began = time.process_time()
    assert infotext.read(hostile).values["seed"] == 3
    assert time.process_time() - began < 5


def test_numbers_out_of_range_are_left():
    stated = infotext.read("a\nSteps: 0, CFG scale: nan, Seed: -1, Size: 9x, Clip skip: 99, Hires upscale: 1e9")
    assert set(stated.values) == {"prompt", "negative", "adapters"} and len(stated.left) == 6


def test_a_file_tells_its_whole_recipe(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(picture_file.to_png(Image.new("RGB", (8, 8)), RECIPE))
    stated = picture_file.read(path)
    assert PictureRecipe(**stated.values) == RECIPE.model_copy(update={"version": ""}) and stated.own
    with Image.open(path) as image:
        assert image.info["parameters"] == TEXT


def test_a_webp_tells_the_same(tmp_path):
    recipe = RECIPE.model_copy(update={"prompt": "a “café” in the snow", "version": ""})
    png = picture_file.to_png(Image.effect_noise((256, 256), 80).convert("RGB"), recipe)
    path = tmp_path / "a.webp"
    path.write_bytes(picture_file.to_webp(png))
    stated = picture_file.read(path)
    assert PictureRecipe(**stated.values) == recipe and stated.own and path.stat().st_size < len(png) / 2


def test_a_recipe_that_cannot_be_read_is_said_unless_a1111_could_read_one(tmp_path):
    """It is taken for a picture that never told how it was made."""
    path, note = tmp_path / "a.png", PngInfo()
    note.add_text(picture_file.KEY, '{"kind": "picture", "steps": "many"}')
    Image.new("RGB", (8, 8)).save(path, pnginfo=note)
    with pytest.raises(SettingsError, match="recipe in a.png is damaged, or of a later version"):
        picture_file.read(path)
    note.add_text(picture_file.PARAMETERS, TEXT)
    Image.new("RGB", (8, 8)).save(path, pnginfo=note)
    stated = picture_file.read(path)
    assert stated.values["seed"] == RECIPE.seed and not stated.own


def test_jpegs_and_webps_of_a1111_are_read(tmp_path):
    """They have the same text in their EXIF."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + OF_A1111.encode("utf-16-be")
    for name in ("a.jpg", "a.webp"):
        Image.new("RGB", (8, 8)).save(tmp_path / name, exif=exif)
        assert picture_file.read(tmp_path / name).values["steps"] == 28


def test_a_sheet_tells_what_its_pictures_share(tmp_path):
    note = PngInfo()
    grid = {"x": {"kind": "seed", "values": [1, 2]}, "prompt": "a cat", "steps": 5, "version": "0.1.0"}
    note.add_text("lora_studio.recipe", json.dumps(grid))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=note)
    stated = picture_file.read(tmp_path / "a.png")
    assert stated.values["prompt"] == "a cat" and "seed" not in stated.values
    assert stated.left == {"Columns": "seed 1, seed 2"}


def test_a_picture_without_a_recipe_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(SettingsError, match="does not tell how it was made"):
        picture_file.read(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(SettingsError, match="cannot be read as a picture"):
        picture_file.read(tmp_path / "b.png")
