"""The commands on adapter files: what they save, what they tell, and every mistake in one message and exit status 2."""

import hashlib
import json
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lora_studio import adapters, cli, files
from lora_studio.adapters import Adapter, metadata, proof, recipe
from lora_studio.adapters.provenance import Provenance
from lora_studio.cli import check as check_command
from lora_studio.cli import ingredients
from lora_studio.cli import inspect as inspect_command
from lora_studio.config import presets
from lora_studio.errors import SettingsError
from tests.adapters.adapter_samples import BLOCK, Q, factors, small
from tests.training.conftest import pictures  # noqa: F401

PATHS = (f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn2.to_k", Q)


def style(name: str, rank: int = 4, width: int = 64, dora: bool = False) -> Adapter:
    """A starter-sized adapter of three layers, drawn from its name."""
    return Adapter(
        {path: factors(f"{name}{path}", width, width, rank, 2.0, dora=dora) for path in PATHS},
        {"modelspec.title": name},
    )


@pytest.fixture
def ink(tmp_path) -> str:
    return str(adapters.write(style("ink"), tmp_path / "ink.safetensors"))


@pytest.fixture
def gold(tmp_path) -> str:
    return str(adapters.write(style("gold", rank=8), tmp_path / "gold.safetensors", "diffusers"))


@pytest.fixture
def told(capfd):
    """Runs a command with ``--json``; gives the object that it ended with."""

    def run(*arguments: object) -> dict:
        status = cli.main([*map(str, arguments), "--json"])
        out, err = capfd.readouterr()
        assert status == 0, err
        return json.loads(out.splitlines()[-1])

    return run


@pytest.fixture
def said(capfd):
    """Runs a command for a person; gives the lines of standard output."""

    def run(*arguments: object) -> list[str]:
        assert cli.main([*map(str, arguments)]) == 0
        return capfd.readouterr().out.splitlines()

    return run


@pytest.fixture
def refused(capfd):
    """Runs a command that must be refused; gives the message."""

    def run(*arguments: object) -> str:
        assert cli.main([*map(str, arguments)]) == 2
        out, err = capfd.readouterr()
        assert not out and "Traceback" not in err
        return err

    return run


def close(one: Adapter, path: str, expected: torch.Tensor, tolerance: float = 1e-5) -> bool:
    return float((one.factors[path].delta() - expected).norm()) <= tolerance * float(expected.norm())


# Mistakes


@pytest.mark.parametrize(("arguments", "message"), [
    (["blend"], "No adapter is named"),
    (["blend", "none.safetensors:0.5"], "There is no adapter none.safetensors"),
    (["blend", "INK", "--block", "1:mid_block=11"], "Weights go from -10 to 10"),
    (["blend", "INK:nan"], "weight of ink.safetensors is nan"), (["merge", "starter", "INK:-11", "-o", "A"], "is -11"),
    (["generate", "--prompt", "cat", "--adapter", "INK:11"], "The weight of ink.safetensors is 11"),
    (["blend", "INK:0"], "nothing would be left"),
    (["blend", "INK", "--method", "mix"], "There is no blend method 'mix'"),
    (["blend", "INK", "--density", "0", "--method", "ties"], "density"),
    (["blend", "INK", "--block", "2:mid_block=0.5"], "a number from 1 to 1"),
    (["blend", "INK", "--block", "mid_block=0.5"], "not the weight of a block"),
    (["blend", "INK", "--block", "1:up_block.1=0.5"], "has no block named up_block.1. Did you mean up_blocks.1, "),
    (["blend", "INK", "--block", "1:zzz=0.5"], "and finer ones such as down_blocks.0"),
    (["convert", "INK", "--to", "peft", "--keep-dora", "-o", "x"], "A file for peft holds a plain LoRA"),
    (["blend", "INK", "GOLD", "-o", "GOLD"], "exists already"),
    (["resize", "INK"], "One of --rank, --energy and --size"),
    (["resize", "INK", "--rank", "2", "--size", "1"], "exclude each other"),
    (["resize", "INK", "--rank", "0"], "leaves nothing"),
    (["resize", "INK", "--energy", "99"], "cannot be kept"),
    (["resize", "INK", "--size", "0.0001"], "cannot be made smaller than"),
    (["resize", "none.safetensors", "--rank", "2"], "There is no adapter"),
    (["analyze", "INK", "none.safetensors"], "There is no adapter"),
    (["analyze", "INK", "--base", "/none/such"], "no base model"),
    (["convert", "INK"], "--out"),
    (["convert", "INK", "--to", "onnx", "-o", "x"], "'onnx' is not one of"),
    (["convert", "INK", "--privacy", "some", "-o", "x"], "'some' is not"),
    (["convert", "INK", "--target", "krita", "-o", "x"], "no export target named 'krita'"),
    (["convert", "INK", "-o", "GOLD"], "exists already"),
    (["merge", "starter"], "FILE[:WEIGHT]"),
    (["merge", "starter", "INK:0", "-o", "x"], "nothing would change"),
    (["check", "none.safetensors"], "There is no adapter"),
    (["check", "a.ckpt"], "There is no adapter"),
    (["inspect", "none.safetensors"], "There is no adapter"),
    (["recipe", "INK"], "contains no recipe"),
])  # fmt: skip
def test_a_mistake_exits_with_2_and_leaves_nothing(arguments, message, ink, gold, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert message in refused(*(word.replace("INK", ink).replace("GOLD", gold) for word in arguments))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.fault(23, 24, 27)
@pytest.mark.parametrize(
    "command", [["inspect"], ["check"], ["recipe"], ["analyze"], ["resize", "--rank", "2"], ["convert", "-o", "x"]]
)
@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.pt", b"anything", "pickle"),
    ("a.safetensors", b"\x80\x02}q\x00" + b"x" * 40, "pickle"),
    ("a.safetensors", (2**63).to_bytes(8, "little") + b"{}", "header"),
    ("a.safetensors", b"", "damaged"),
])  # fmt: skip
def test_hostile_files_are_refused_by_every_command(command, name, content, message, tmp_path, refused):
    (tmp_path / name).write_bytes(content)
    assert message in refused(command[0], tmp_path / name, *command[1:])


def test_a_mistake_is_told_to_programs_as_json(ink, capfd):
    assert cli.main(["recipe", ink, "--json"]) == 2
    assert "contains no recipe" in json.loads(capfd.readouterr().out)["error"]["what"]


# blend


def test_a_blend_is_the_weighted_sum_with_its_recipe(ink, gold, tmp_path, told):
    out = tmp_path / "both.safetensors"
    result = told("blend", f"{ink}:0.7", f"{gold}:-0.3", "-o", out)
    assert (
        result["file"] == str(out)
        and result["rank"] == 12
        and result["residual"] == 0
        and result["size"] == out.stat().st_size
    )
    assert [row["passed"] for row in result["proof"]] == [True, True]
    made = adapters.read(out)
    for path in PATHS:
        assert close(
            made, path, 0.7 * style("ink").factors[path].delta() - 0.3 * style("gold", 8).factors[path].delta()
        )
    again = recipe.read(made.metadata)
    assert [(one.name, one.weight, len(one.sha256)) for one in again.ingredients] == [
        ("ink", 0.7, 64),
        ("gold", -0.3, 64),
    ] and result["recipe"] == again.model_dump()


def test_a_blend_can_have_a_picture(ink, gold, tmp_path, told, capfd):
    """A library of blends is a wall of letters; or a text is taken for a picture."""
    Image.new("RGB", (300, 200), "red").save(tmp_path / "mix.png")
    told("blend", ink, gold, "--thumbnail", tmp_path / "mix.png", "-o", tmp_path / "both")
    assert metadata.thumbnail_bytes(adapters.header(tmp_path / "both.safetensors").metadata)
    assert cli.main(["blend", ink, gold, "--thumbnail", ink, "-o", str(tmp_path / "none")]) == 2
    assert "not an image" in capfd.readouterr().err and not (tmp_path / "none.safetensors").exists()


def test_a_list_of_block_weights_goes_with_its_file(ink, gold, tmp_path, told, capfd):
    """By number, name or path; the recipe has the blocks by their names, and repeats them."""
    listed = "MINE:1,0.5,1,0.25,1,1,1,1,1,1,1,1,1,1,1,1,1"
    result = told("blend", ink, f"{gold}:0.5", "--blocks", f"gold={listed}", "--blocks", "1=IND", "-o", tmp_path / "a")
    first, second = (one["blocks"] for one in result["recipe"]["ingredients"])
    assert first == {"IN01": 0.0, "IN04": 0.0} and second == {"IN01": 0.5, "IN04": 0.25}
    made, parts = adapters.read(tmp_path / "a.safetensors"), (style("ink"), style("gold", 8))
    for path, weights in zip(PATHS, ((0, 0.25), (0, 0.25), (0, 0.125)), strict=True):
        true = sum(weight * one.factors[path].delta() for one, weight in zip(parts, weights, strict=True))
        assert close(made, path, true)
    for wrong, said in (("wash=ALL", "names none of the adapters"), ("ink=1,2", "cannot have 2 numbers")):
        assert cli.main(["blend", ink, gold, "--blocks", wrong]) == 2 and said in capfd.readouterr().err


def test_trimming_tells_what_it_loses_and_saves_only_with_a_name(ink, gold, tmp_path, told, said):
    result = told("blend", ink, gold, "--method", "svd", "--rank", "2")
    assert (
        result["file"] is None
        and result["rank"] == 2
        and 0.1 < result["residual"] < 1
        and set(result["residuals"]) == set(PATHS)
    )
    lines = said("blend", ink, gold, "--method", "svd", "--rank", "2")
    assert (
        "+1·ink +1·gold: svd, rank 2, 3 modules" in lines[0]
        and "Trimming keeps" in lines[1]
        and "Nothing is saved" in lines[-1]
    )
    assert len(list(tmp_path.iterdir())) == 2


def test_a_block_has_its_own_weight(ink, tmp_path, told):
    told("blend", f"{ink}:2", "--block", "1:down_blocks.1=0.5", "-o", tmp_path / "out")
    made = adapters.read(tmp_path / "out.safetensors")
    assert close(made, Q, style("ink").factors[Q].delta()) and close(
        made, PATHS[0], 2 * style("ink").factors[PATHS[0]].delta()
    )


def test_the_same_seed_drops_the_same_entries(ink, gold, tmp_path, told):
    """DARE draws; a recipe must give the same file again."""
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        told("blend", ink, gold, "--method", "dare", "--seed", seed, "-o", tmp_path / name)
    a, b, c = (load_file(tmp_path / f"{name}.safetensors") for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a) and not all(torch.equal(a[key], c[key]) for key in a)


@pytest.mark.fault(29)
def test_families_do_not_mix(ink, tmp_path, refused):
    other = adapters.write(Adapter({PATHS[0]: factors("x", 320, 320)}), tmp_path / "sd.safetensors")
    message = refused("blend", ink, other)
    assert "ink was made for the built-in starter and sd for Stable Diffusion" in message


def test_blocks_are_parsed():
    assert ingredients.parse_blocks(["2:mid_block=0.5", "2:up_blocks.1=-1"], 2) == [
        {},
        {"mid_block": 0.5, "up_blocks.1": -1.0},
    ]
    for text in ("0:mid_block=1", "3:mid_block=1", "1:=1", "1:mid_block", "x:mid_block=1"):
        with pytest.raises(SettingsError, match="not the weight of a block"):
            ingredients.parse_blocks([text], 2)


# resize


def test_resizing_tells_before_it_saves(ink, tmp_path, told, said):
    result = told("resize", ink, "--rank", 2)
    assert (
        result["file"] is None
        and (result["rank_before"], result["rank"]) == (4, 2)
        and result["size"] < result["size_before"]
    )
    assert result["kept"] == pytest.approx(1 - result["residual"] ** 2)
    assert "It keeps" in said("resize", ink, "--rank", 2)[1] and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("way", "value"), [("rank", 2), ("energy", 0.9), ("size", 0.006)])
def test_a_resized_file_is_near_and_says_that_it_is(ink, tmp_path, told, way, value):
    out = tmp_path / "small.safetensors"
    result = told("resize", ink, f"--{way}", value, "-o", out)
    made = adapters.read(out)
    assert result["size"] == out.stat().st_size and all(row["passed"] for row in result["proof"])
    assert all(
        close(made, path, style("ink").factors[path].delta(), result["residuals"][path] + 1e-4) for path in PATHS
    )
    assert json.loads(made.metadata["lora_studio.resized"])[way] == value and made.metadata["modelspec.title"] == "ink"
    if way == "size":
        assert result["size"] <= value * 1e6
    if way == "energy":
        assert result["kept"] >= 0.9


def test_a_smaller_number_format_halves_the_file(ink, tmp_path, told):
    result = told("resize", ink, "--rank", 4, "--dtype", "fp16", "-o", tmp_path / "half")
    assert result["residual"] == 0
    assert adapters.read(tmp_path / "half.safetensors").factors[Q].down.dtype is torch.float16


# analyze


def test_an_analysis_in_words_and_in_numbers(ink, gold, told, said):
    result = told("analyze", ink, gold)
    assert (
        result["rank"] == 4
        and len(result["modules"]) == 3
        and result["heatmap"]["rows"] == ["down_blocks.0", "down_blocks.1"]
        and result["words"]
    )
    assert result["comparison"]["shared"] == 3 and abs(result["comparison"]["cosine"]) < 0.3
    lines = said("analyze", ink, gold)
    assert any("of the change is in down_blocks.0" in line for line in lines) and any(
        line.startswith("down_blocks.1        1") for line in lines
    )
    assert any("nearly independent" in line for line in lines)


def test_an_analysis_relative_to_the_base_model(tmp_path, told):
    """The base is read weight by weight from its file."""
    path = f"{BLOCK}.attn1.to_q"
    base = tmp_path / "base.safetensors"
    save_file(
        {"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight": torch.full((64, 64), 2.0)},
        base,
    )
    one = Adapter({path: style("ink").factors[path]})
    result = told("analyze", adapters.write(one, tmp_path / "one.safetensors"), "--base", base)
    assert result["modules"][0]["relative"] == pytest.approx(float(one.factors[path].delta().norm()) / 128, rel=1e-4)


def test_the_plots_are_pictures_beside_each_other(ink, tmp_path, told):
    first, second = (told("analyze", ink, "--plots", tmp_path / "plots")["plots"] for _ in range(2))
    assert [Path(path).name for path in first] == ["ink-heatmap.png", "ink-spectrum.png", "ink-histogram.png"]
    assert not set(first) & set(second), "nothing may be overwritten"
    for path in first:
        with Image.open(path) as image:
            assert image.width > 100 and len(image.getcolors(1 << 20)) > 1


# convert


@pytest.mark.parametrize(
    ("to", "targets"),
    [("kohya", ["comfyui", "forge", "a1111", "diffusers"]), ("diffusers", ["diffusers"]), ("peft", ["peft"])],
)
def test_an_export_is_proved_for_those_who_read_it(gold, tmp_path, told, said, to, targets):
    out = tmp_path / "out" / ("folder" if to == "peft" else "file.safetensors")
    result = told("convert", gold, "--to", to, "-o", out)
    assert [row["target"] for row in result["proof"]] == targets and all(
        row["passed"] and row["matched"] == 3 for row in result["proof"]
    )
    made = adapters.read(out)
    assert all(close(made, path, style("gold", 8).factors[path].delta()) for path in PATHS)
    lines = said("convert", gold, "--to", to, "-o", tmp_path / "again")
    assert "pass" in lines[0] and "All 3 modules arrive" in lines[0] and lines[-1].startswith("Saved: ")


def test_what_does_not_pass_is_not_saved_and_the_table_says_why(ink, tmp_path, capfd):
    """An export for a program that does not read the format."""
    assert (
        cli.main(
            [
                "convert",
                ink,
                "--to",
                "diffusers",
                "--target",
                "diffusers",
                "--target",
                "comfyui",
                "-o",
                str(tmp_path / "out"),
            ]
        )
        == 2
    )
    out, err = capfd.readouterr()
    assert (
        "diffusers  pass" in err
        and "ComfyUI    FAIL  It finds 0 of 3 modules." in err
        and "ComfyUI would not read the export" in err
        and not out
    )
    assert [path.name for path in tmp_path.iterdir()] == ["ink.safetensors"]


@pytest.mark.parametrize(("privacy", "kept"), [("none", False), ("minimal", False), ("full", True)])
def test_only_full_privacy_tells_the_recipe(tmp_path, told, privacy, kept):
    source = adapters.write(style("ink"), tmp_path / "a.safetensors", metadata=trained_header())
    told("convert", source, "--privacy", privacy, "-o", tmp_path / "b")
    with safe_open(tmp_path / "b.safetensors", "pt") as file:
        assert (recipe.KEY in file.metadata()) is kept and ("modelspec.trigger_phrase" in file.metadata()) is (
            privacy != "none"
        )


def test_a_dora_needs_its_base_and_becomes_plain(tmp_path, told, refused):
    path = f"{BLOCK}.attn1.to_q"
    base = tmp_path / "base.safetensors"
    save_file({"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight": torch.eye(64)}, base)
    one = Adapter({path: style("ink", dora=True).factors[path]})
    source = adapters.write(one, tmp_path / "dora.safetensors", raw_dora=True)
    assert "needs its base model" in refused("convert", source, "-o", tmp_path / "plain")
    result = told("convert", source, "--base", base, "--rank", 64, "-o", tmp_path / "plain")
    assert result["residual"] < 1e-4 and adapters.read(tmp_path / "plain.safetensors").kind.name == "lora"
    result = told("convert", source, "--base", base, "--keep-dora", "-o", tmp_path / "kept")
    assert [row["target"] for row in result["proof"]] == ["comfyui", "forge"] and result["residual"] == 0
    assert adapters.read(tmp_path / "kept.safetensors").kind.name == "dora"


# merge


def test_a_merge_and_its_inverse(ink, tmp_path, told):
    key = "model.diffusion_model.input_blocks.{}.1.transformer_blocks.0.{}.weight"
    keys = {
        PATHS[0]: key.format(1, "attn1.to_q"),
        PATHS[1]: key.format(1, "attn2.to_k"),
        PATHS[2]: key.format(4, "attn1.to_q"),
    }
    base = {name: torch.full((64, 64), 3.0) for name in keys.values()} | {"first_stage_model.x": torch.ones(2)}
    save_file(base, tmp_path / "base.safetensors")
    result = told("merge", tmp_path / "base.safetensors", f"{ink}:0.5", "-o", tmp_path / "merged")
    assert result["tensors"] == 4 and result["adapters"] == [{"file": ink, "weight": 0.5}]
    merged = load_file(tmp_path / "merged.safetensors")
    for path, name in keys.items():
        assert torch.allclose(merged[name], 3 + 0.5 * style("ink").factors[path].delta(), atol=1e-5)
    told("merge", tmp_path / "merged.safetensors", f"{ink}:0.5", "--unmerge", "-o", tmp_path / "back")
    back = load_file(tmp_path / "back.safetensors")
    assert all(torch.allclose(back[name], base[name], atol=1e-5) for name in base)


def test_a_merge_into_another_family_counts_what_fits(ink, tmp_path, refused):
    save_file(
        {"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight": torch.ones(64, 64)},
        tmp_path / "base.safetensors",
    )
    assert "Only 1 of 3 modules have a place" in refused(
        "merge", tmp_path / "base.safetensors", ink, "-o", tmp_path / "merged"
    )
    assert not (tmp_path / "merged.safetensors").exists()


# inspect


def test_inspecting_shows_what_shapes_say_beside_what_the_header_claims(tmp_path, told, said):
    file = adapters.write(
        small(),
        tmp_path / "a.safetensors",
        metadata={"ss_tag_frequency": "x" * 500, "modelspec.description": "two\nlines\x1b[31m"},
    )
    result = told("inspect", file)
    assert (result["family"], result["method"], result["dialect"], result["rank"], result["mixed_ranks"]) == (
        "starter",
        "locon",
        "kohya",
        4,
        True,
    )
    assert (
        result["blocks"] == {"down_blocks.0": 5, "mid_block": 1, "text_encoder": 1}
        and result["dtypes"] == ["F32"]
        and result["unknown"] == []
    )
    lines = said("inspect", file)
    assert (
        "Made for  the built-in starter" in lines
        and "Rank      4 (mixed)" in lines
        and any("(500 characters)" in line for line in lines)
    )
    assert not any("\x1b" in line for line in lines), "a stranger's header must not steer the terminal"


def test_inspecting_reads_no_tensor(ink, monkeypatch, told):
    monkeypatch.setattr("lora_studio.adapters.tensors.read_tensor", lambda *_: pytest.fail("a tensor was read"))
    assert told("inspect", ink)["modules"] == 3


def test_long_texts_are_cut():
    assert inspect_command._short("a\tb") == "a b" and inspect_command._short("x" * 161).endswith("… (161 characters)")


# recipe and check


def training(**more) -> recipe.Training:
    values = {
        "settings": {
            "rank": 4,
            "steps": 10,
            "trigger": "inkstyle",
            "preview_prompts": ["a cat"],
            "validation_share": 0.0,
        },
        "base": "model.safetensors",
        "base_sha256": "ab" * 32,
        "steps": 10,
    }
    return recipe.Training(**{**values, **more})


def trained_header(**more) -> dict[str, str]:
    return Provenance(training(**more), title="ink", prediction="v", resolution=128, trigger="inkstyle").texts


def test_a_recipe_is_a_preset_that_train_takes(tmp_path, said, told):
    file = adapters.write(style("ink"), tmp_path / "ink.safetensors", metadata=trained_header())
    text = "\n".join(said("recipe", file))
    (tmp_path / "again.toml").write_text(text, "utf-8")
    settings = presets.layered(str(tmp_path / "again.toml"), [])
    assert (settings.adapter.rank, settings.run.steps, settings.run.trigger, settings.previews.preview_prompts) == (
        4,
        10,
        "inkstyle",
        ["a cat"],
    )
    assert "# base model: model.safetensors" in text
    assert told("recipe", file)["settings"]["rank"] == 4


def test_a_recipe_of_another_version_leaves_out_what_is_unknown_and_says_so(tmp_path, said):
    file = adapters.write(
        style("ink"),
        tmp_path / "ink.safetensors",
        metadata=trained_header(settings={"rank": 8, "magic": 3}, base="x\n[settings]\nrank = 99"),
    )
    text = "\n".join(said("recipe", file))
    assert tomllib.loads(text)["settings"] == {"rank": 8} and "left out: magic" in text


def test_a_recipe_with_a_senseless_value_is_refused(tmp_path, refused):
    file = adapters.write(style("ink"), tmp_path / "ink.safetensors", metadata=trained_header(settings={"rank": -1}))
    assert "rank must be " in refused("recipe", file)


def test_the_recipe_of_a_blend_is_the_command_that_repeats_it(ink, gold, tmp_path, told, said, monkeypatch):
    told(
        "blend",
        f"{ink}:0.5",
        f"{gold}:-0.25",
        "--method",
        "ties",
        "--rank",
        "3",
        "--density",
        "0.4",
        "--block",
        "2:mid_block=0.5",
        "-o",
        tmp_path / "mix",
    )
    line = said("recipe", tmp_path / "mix.safetensors")[1]
    assert line == (
        "python3 app.py blend ink.safetensors:0.5 gold.safetensors:-0.25 --method ties --rank 3 --density 0.4"
        " --block 2:mid_block=0.5 -o blend.safetensors"
    )
    monkeypatch.chdir(tmp_path)
    told(*line.split()[2:])
    mix, again = load_file("mix.safetensors"), load_file("blend.safetensors")
    assert all(torch.equal(mix[key], again[key]) for key in mix)


def test_a_sound_file_without_a_recipe(ink, told, said):
    result = told("check", ink)
    assert (
        result["sound"] is True
        and result["verdict"] == "none"
        and (result["family"], result["rank"], result["modules"]) == ("starter", 4, 3)
    )
    assert "all values are finite" in said("check", ink)[0]


@pytest.mark.fault(33)
def test_a_header_that_lies_and_tensors_that_changed_are_reported(ink, tmp_path, told):
    """The shapes count."""
    tensors = load_file(ink)
    with safe_open(ink, "pt") as file:
        texts = file.metadata() | {
            "ss_base_model_version": "sdxl_base_v1-0",
            "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        }
    save_file(
        {key: torch.zeros_like(tensor) if "lora_up" in key else tensor for key, tensor in tensors.items()},
        tmp_path / "lie.safetensors",
        texts,
    )
    result = told("check", tmp_path / "lie.safetensors")
    assert result["family"] == "starter" and result["sound"] is False
    lie, altered, nothing = result["warnings"]
    assert "Stable Diffusion XL" in lie and "changed or damaged" in altered and "changes nothing" in nothing


@pytest.fixture
def repeatable(tmp_path, pictures):  # noqa: F811
    """A trained file, its base model's file, and the header's values by which both belong together."""
    base = tmp_path / "model.safetensors"
    base.write_bytes(b"a base model")
    shots = [recipe.ImageRecord(name=path.name, sha256=files.sha256(path)) for path in sorted(pictures.glob("*.png"))]

    def make(**more) -> Path:
        values = {
            "base_sha256": files.sha256(base),
            "images": shots,
            "versions": check_command._versions(["torch", "peft"]),
        }
        return adapters.write(style("ink"), tmp_path / "ink.safetensors", metadata=trained_header(**{**values, **more}))

    return make, base, pictures


def test_a_run_that_can_be_repeated(repeatable, told, said):
    make, base, folder = repeatable
    file = make()
    result = told("check", file, "--base", base, "--data", folder)
    assert (result["verdict"], result["differences"], result["unknown"]) == ("same", [], [])
    assert "not a safetensors file" in result["base_warnings"][0], "that the base model cannot be loaded is said"
    assert "would give the same adapter" in said("check", file, "--base", base, "--data", folder)[-1]


def test_a_base_model_in_a_folder_is_told_by_its_weights(repeatable, tmp_path, told):
    """By names and sums of the weight files, as a run records it; a folder's other files may change."""
    make, _, folder = repeatable
    model = tmp_path / "model"
    for name in ("text_encoder/model.safetensors", "unet/b.safetensors", "unet/a.safetensors", "unet/config.json"):
        files.write(model / name, name)
    sums = [
        f"{name} {files.sha256(model / name)}\n"
        for name in ("unet/a.safetensors", "unet/b.safetensors", "text_encoder/model.safetensors")
    ]
    file = make(base_sha256=hashlib.sha256("".join(sums).encode()).hexdigest())
    assert told("check", file, "--base", model, "--data", folder)["verdict"] == "same"
    files.write(model / "unet" / "b.safetensors", "other")
    assert told("check", file, "--base", model, "--data", folder)["verdict"] == "different"


def test_files_beside_the_base_model_are_compared_whatever_their_names(repeatable, tmp_path, told, refused):
    make, base, folder = repeatable
    for name in ("vae", "clip", "other"):
        files.write(tmp_path / f"{name}.safetensors", name)
    vae, clip, other = (tmp_path / f"{name}.safetensors" for name in ("vae", "clip", "other"))
    file = make(parts={"sdxl.vae.safetensors": files.sha256(vae), "clip_l.safetensors": files.sha256(clip)})
    compare = ("check", file, "--base", base, "--data", folder)
    result = told(*compare, "--vae", vae, "--text-encoders", clip)
    assert (result["verdict"], result["differences"], result["unknown"]) == ("same", [], [])
    result = told(*compare, "--vae", vae)
    assert result["verdict"] == "unknown" and [one.split(",")[0] for one in result["unknown"]] == ["clip_l.safetensors"]
    result = told(*compare, "--vae", vae, "--text-encoders", other)
    assert (result["verdict"], result["differences"]) == (
        "different",
        [{"what": "files beside the base model", "recorded": "clip_l.safetensors", "found": "other.safetensors"}],
    )
    assert "There is no file at none.safetensors" in refused(*compare, "--vae", "none.safetensors")


def test_what_is_not_at_hand_is_named(repeatable, told):
    make, _, _ = repeatable
    result = told("check", make())
    assert (
        result["verdict"] == "unknown"
        and len(result["unknown"]) == 2
        and "--base" in result["unknown"][0]
        and "--data" in result["unknown"][1]
    )


def test_pictures_kept_out_for_validation_are_no_difference(repeatable, told):
    """A recipe names only those that were trained on."""
    from lora_studio.dataset import folder as scanning
    from lora_studio.dataset.batch_sampler import split

    make, base, folder = repeatable
    dataset = scanning.scan(folder)
    train, held_out = split(dataset.pictures, 0.3, 5)
    shots = [
        recipe.ImageRecord(name=dataset.pictures[index].path.name, sha256=dataset.pictures[index].sha256)
        for index in train
    ]
    assert held_out
    file = make(images=shots, settings={"validation_share": 0.3, "seed": 5, "steps": 10})
    assert told("check", file, "--base", base, "--data", folder)["verdict"] == "same"


def test_a_caption_that_changed_since_is_a_difference(repeatable, told):
    from lora_studio.dataset import folder as scanning
    from lora_studio.dataset import manifest

    make, base, folder = repeatable
    dataset = scanning.scan(folder)
    shots = [
        recipe.ImageRecord(name=one.path.name, sha256=one.sha256, prepared=manifest.prepared(one))
        for one in dataset.pictures
    ]
    file = make(images=shots)
    assert told("check", file, "--base", base, "--data", folder)["verdict"] == "same"
    first = dataset.pictures[0].path
    first.with_suffix(".txt").write_text("another caption")
    (difference,) = told("check", file, "--base", base, "--data", folder)["differences"]
    assert (difference["what"], difference["recorded"]) == ("captions, masks, crops or weights", first.name)


@pytest.mark.parametrize(("more", "what"), [
    ({"base_sha256": "cd" * 32}, "base model"),
    ({"images": []}, "pictures added"),
    ({"images": [recipe.ImageRecord(name="gone.png", sha256="ef" * 32)]}, "pictures missing or changed"),
    ({"versions": {"torch": "0.1"}}, "torch"),
    ({"versions": {"no-such-library": "1"}}, "no-such-library"),
    ({"steps": 7}, "steps"),
    ({"settings": {"magic": 1}}, "settings"),
])  # fmt: skip
def test_each_difference_is_named(repeatable, told, more, what):
    make, base, folder = repeatable
    result = told("check", make(**more), "--base", base, "--data", folder)
    assert result["verdict"] == "different" and what in [one["what"] for one in result["differences"]]


def test_a_resized_file_is_not_what_its_run_gave(repeatable, tmp_path, told):
    make, base, folder = repeatable
    told("resize", make(), "--rank", 2, "-o", tmp_path / "small")
    result = told("check", tmp_path / "small.safetensors", "--base", base, "--data", folder)
    assert [one["what"] for one in result["differences"]] == ["resized after training"]


def test_the_table_of_a_proof_has_a_line_for_each_program(ink):
    proved = proof.prove(ink, adapters.read(ink), proof.TARGETS[:2])
    assert [line.split()[0] for line in proved.lines()] == ["ComfyUI", "Forge"] and len(proved.lines()) == 2


def test_add_takes_what_is_whole_and_names_what_is_not(ink, told, tmp_path):
    """A damaged file among several costs itself only, and what is in the library is never overwritten."""
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(Path(ink).read_bytes()[:-3])
    result = told("add", ink, broken, "--outputs", tmp_path / "outputs")
    (added,) = result["added"]
    assert adapters.read(added).factors.keys() == adapters.read(ink).factors.keys()
    assert [one["file"] for one in result["refused"]] == ["broken.safetensors"]


def test_add_of_nothing_usable_is_a_mistake(tmp_path, capfd):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not an adapter")
    assert cli.main(["add", str(broken), "--outputs", str(tmp_path / "outputs")]) == 2
    assert "broken" in capfd.readouterr().err


def test_add_of_nothing_usable_names_each_file(tmp_path, capfd):
    """Of several files that are all refused only the first was told of."""
    for name in ("one.safetensors", "two.ckpt"):
        (tmp_path / name).write_bytes(b"not an adapter")
    assert (
        cli.main(
            [
                "add",
                str(tmp_path / "one.safetensors"),
                str(tmp_path / "two.ckpt"),
                "--outputs",
                str(tmp_path / "outputs"),
                "--json",
            ]
        )
        == 2
    )
    refused = json.loads(capfd.readouterr().out)["error"]["details"]["refused"]
    assert [one["file"] for one in refused] == ["one.safetensors", "two.ckpt"] and "pickle" in refused[1]["what"]
