"""``strip`` and ``grid``: for real on a tiny model, and every mistake in one message."""

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from lora_studio import adapters, cli
from lora_studio.adapters import Adapter, Factors
from lora_studio.cli import drawing
from lora_studio.cli import grid as grids
from lora_studio.errors import RunError
from lora_studio.files import sha256
from lora_studio.sampling import picture_file
from lora_studio.sampling.axes import Axis
from lora_studio.sampling.image_settings import Hires
from lora_studio.sampling.picture_recipe import StartedFrom
from lora_studio.sampling.recipe import read_recipe
from tests.training.conftest import tiny_base  # noqa: F401

PATH = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def saved(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return adapters.write(Adapter({PATH: Factors(torch.full((1, 32), 0.5), torch.ones(32, 1), 1.0)}), path)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two adapters, and a run with two checkpoints and one that was cut short, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lora_studio.runs.find.__defaults__", (tmp_path / "outputs",))
    for place in ("a", "b", "outputs/ink/checkpoints/step-100/adapter", "outputs/ink/checkpoints/step-20/adapter"):
        saved(tmp_path / f"{place}.safetensors")
    for step in (20, 100):
        (tmp_path / f"outputs/ink/checkpoints/step-{step}/manifest.json").write_text("{}")
    (tmp_path / "outputs/ink/settings.toml").touch()
    (tmp_path / "outputs/ink/checkpoints/step-300.partial").mkdir()
    return tmp_path


def drawn(arguments, base, capfd) -> dict:
    few = [
        "--base",
        str(base),
        "--steps",
        "1",
        "--guidance",
        "1",
        "--width",
        "64",
        "--height",
        "64",
        "--device",
        "cpu",
        "--json",
    ]
    assert cli.main([*arguments, *few]) == 0
    return json.loads(capfd.readouterr().out.splitlines()[-1])


def test_a_strip_and_a_grid(files, tiny_base, capfd):  # noqa: F811
    told = drawn(
        [
            "strip",
            "a.safetensors",
            "--count",
            "2",
            "--to",
            "1",
            "--prompt",
            "a cat",
            "--adapter",
            "b.safetensors:0.5",
            "-o",
            "strip",
        ],
        tiny_base,
        capfd,
    )
    recipe = read_recipe(Path(told["sheet"]))
    assert (
        Path(told["sheet"]) == files / "strip.png" and told["pictures"] == 2 and told["recipe"]["x"]["values"] == [0, 1]
    )
    assert (
        [cell.weights for cell in recipe.cells[0]] == [(0, 0.5), (1, 0.5)]
        and recipe.prompt == "a cat"
        and recipe.x.labels == ["a 0", "a 1"]
    )
    assert (
        recipe.base == "tiny"
        and len(recipe.base_sha256) == 64
        and told["recipe"] == recipe.model_dump(mode="json")
        and all(len(one.sha256) == 64 for one in recipe.adapters)
    )
    assert str(files) not in recipe.model_dump_json(), "a shared picture must not tell where her files lie"

    told = drawn(
        ["grid", "--x", "checkpoint=ink", "--y", 'prompt="a cat, asleep",a dog', "-o", "grid.png"], tiny_base, capfd
    )
    recipe = read_recipe(Path(told["sheet"]))
    assert recipe.x.labels == ["ink step-20", "ink step-100"] and recipe.y.labels == ["a cat, asleep", "a dog"]
    assert [cell.weights for cell in recipe.cells[1]] == [(1, 0), (0, 1)]
    with Image.open(told["sheet"]) as image:
        assert image.width > 128 and image.height > 128


def test_a_distilled_model_is_drawn_in_few_steps(files, tiny_base, capfd):  # noqa: F811
    Path("ink-turbo").mkdir()
    for part in tiny_base.iterdir():
        Path("ink-turbo", part.name).symlink_to(part)
    size = ["--width", "64", "--height", "64", "--device", "cpu", "--prompt", "a cat", "--base", "ink-turbo"]
    assert cli.main(["grid", "--x", "seed=1", "-o", "fast.png", *size]) == 0
    said = capfd.readouterr().err
    assert "Note: Images of this distilled model are drawn with 6 steps and guidance 1 instead of 20 steps and" in said
    assert "Note: The base model seems to be distilled (Turbo: its name says so)." in said
    assert (read_recipe(Path("fast.png")).steps, read_recipe(Path("fast.png")).guidance) == (6, 1)
    assert cli.main(["generate", "--steps", "2", "--folder", "drawn", *size]) == 0
    assert "are drawn with guidance 1 instead of guidance 5" in capfd.readouterr().err
    (image,) = Path("drawn").glob("*.png")
    assert "Steps: 2, Sampler: DPM++ 2M, CFG scale: 1," in Image.open(image).text["parameters"]


def test_a_picture_is_drawn_over_and_enlarged_and_says_so(files, tiny_base, capfd):  # noqa: F811
    Image.new("RGB", (64, 64), "teal").save("start.png")
    size = ["--base", str(tiny_base), "--steps", "2", "--width", "64", "--height", "64", "--device", "cpu"]
    more = ["--start", "start.png", "--strength", "0.5", "--hires", "1.5", "--hires-strength", "0.75"]
    assert cli.main(["generate", "--prompt", "a cat", "--folder", "drawn", *size, *more]) == 0
    (path,) = Path("drawn").glob("*.png")
    told = picture_file.read(path).values
    assert Image.open(path).size == (96, 96) and (told["width"], told["height"]) == (64, 64)
    assert Hires.model_validate(told["hires"]) == Hires(scale=1.5, strength=0.75)
    assert StartedFrom.model_validate(told["start"]) == StartedFrom(
        name="start.png", sha256=sha256(Path("start.png")), strength=0.5
    )
    assert cli.main(["grid", "--x", "seed=1", "--prompt", "a cat", "-o", "large.webp", *size, *more[4:]]) == 0
    assert read_recipe(Path("large.webp")).hires == Hires(scale=1.5, strength=0.75)
    assert cli.main(["generate", "--prompt", "a cat", "--start", "none.png", *size]) == 2
    assert "There is no picture" in capfd.readouterr().err


def test_a_sheet_that_no_webp_can_hold_is_kept_as_a_png(tmp_path, capfd):
    data = io.BytesIO()
    Image.new("L", (16384, 1)).save(data, "PNG")
    assert drawing._saved(tmp_path / "wide.webp", data.getvalue()) == tmp_path / "wide.png"
    assert (tmp_path / "wide.png").read_bytes() == data.getvalue()
    assert "at most 16383 on a side. It is saved as wide.png." in capfd.readouterr().err


def test_the_noise_by_hand_is_drawn_and_noted(files, tiny_base, capfd):  # noqa: F811
    """A folder whose configuration says ε, drawn as velocity that ends in pure noise."""
    arguments = ["--prompt", "a cat <lora:ink:1>", "--prediction", "v", "--zero-snr", "on"]
    base = ["--base", str(tiny_base), "--steps", "2", "--width", "64", "--height", "64", "--device", "cpu"]
    grid = ["grid", "--x", "guidance=2,5", "--guidance-rescale", "0", "-o", "v.png"]
    assert cli.main([*grid, *arguments, *base]) == 0
    said = capfd.readouterr().err
    assert "It predicts: Velocity (v), zero terminal SNR – set by hand." in said
    assert said.count("In prompts the studio reads <lora:ink:1> as plain words") == 1
    assert "Note: prediction is v by hand, but its scheduler's configuration says epsilon." in said
    recipe = read_recipe(Path("v.png"))
    assert (recipe.prediction, recipe.zero_snr, recipe.guidance_rescale) == ("v", "on", 0)
    assert cli.main(["generate", *arguments, *base, "--folder", "drawn"]) == 0
    said = capfd.readouterr().err
    assert "It predicts: Velocity (v), zero terminal SNR" in said and "reads <lora:ink:1> as plain words" in said
    assert cli.main(["generate", "--prompt", "a cat", "--prediction", "w", *base]) == 2
    assert "prediction" in capfd.readouterr().err


@pytest.mark.parametrize(("arguments", "said"), [
    (["strip", "none.safetensors", "--prompt", "x"], "no adapter none.safetensors"),
    (["strip"], "FILE"),
    (["strip", "a.safetensors"], "There is no prompt"),
    (["strip", "a.safetensors", "--prompt", "x", "--to", "99"], "--to"),
    (["strip", "a.safetensors", "--prompt", "x", "-o", "there.png"], "exists already"),
    (["strip", "a.safetensors", "--prompt", "x", "--y", "weight:a.safetensors=1"], "both axes vary the same weight"),
    (["grid", "--prompt", "x"], "There are no columns"),
    (["grid", "--prompt", "x", "--x", "sead=1"], "Did you mean seed"),
    (["grid", "--prompt", "x", "--x", "seed=1", "--y", "adapter=none.safetensors"], "no adapter none.safetensors"),
    (["grid", "--prompt", "x", "--x", "checkpoint=inc"], "Did you mean ink"),
    (["grid", "--prompt", "x", "--x", "weight=0,1"], "no adapter whose weight"),
    (["grid", "--prompt", "x", "--x", "seed=1", "--sampler", "eular"], "sampler"),
])  # fmt: skip
def test_a_mistake_exits_with_2_and_one_clear_message(arguments, said, files, capfd):
    (files / "there.png").touch()
    assert cli.main(arguments) == 2
    out, err = capfd.readouterr()
    assert said in err and "Traceback" not in err and len(err.strip().splitlines()) == 1 and not out


def test_every_adapter_has_a_name_of_its_own(files):
    """Two files called style.safetensors in two folders, and one file at two weights, are three columns."""
    cast, other = drawing.SheetAdapters(), saved(files / "sub" / "a.safetensors")
    axis = grids.named(
        Axis("adapter", ("a.safetensors", str(other), "a.safetensors:0.5", "a.safetensors")), cast, "--x"
    )
    assert axis.values == ("a", "sub/a", "a:0.5", "a")
    assert [weight for _, weight in cast.placed.values()] == [1, 1, 0.5]


def test_a_weights_adapter_is_the_one_that_is_there_already(files):
    cast = drawing.SheetAdapters()
    cast.add((files / "a.safetensors").resolve(), 0.7)
    for subject in ("a", "a.safetensors"):
        assert grids.named(Axis("weight", (1.0,), subject), cast, "--x").subject == "a"
    assert grids.named(Axis("weight", (1.0,), "b.safetensors"), cast, "--x").subject == "b" and list(cast.placed) == [
        "a",
        "b",
    ]


def test_checkpoints_are_a_runs_or_one_folder(files):
    assert [folder.name for folder in grids.checkpoints("ink", "--x")] == ["step-20", "step-100"], (
        "by number, without what was cut short"
    )
    assert [folder.name for folder in grids.checkpoints("outputs/ink/checkpoints/step-20", "--x")] == ["step-20"]
    (files / "outputs" / "new").mkdir()
    (files / "outputs" / "new" / "settings.toml").touch()
    with pytest.raises(RunError, match="new has no saved states"):
        grids.checkpoints("new", "--x")
