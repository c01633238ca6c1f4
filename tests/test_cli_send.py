"""``send``: an adapter arrives in another program's folder as it was proved for it."""

import json
from pathlib import Path

import pytest

from lora_studio import adapters, cli, runs
from lora_studio.adapters import metadata, recipe
from lora_studio.config.settings import Settings
from tests.adapters.adapter_samples import small


@pytest.fixture
def outputs(tmp_path) -> Path:
    """With the adapter of a run called ink, whose header tells a private picture's name."""
    run = runs.create(Settings(data="x", name="ink"), tmp_path / "outputs")
    made = recipe.Training(settings={}, images=[recipe.ImageRecord(name="secret.png", sha256="0" * 64)])
    header = {"modelspec.title": "ink", "modelspec.trigger_phrase": "inkstyle", recipe.KEY: recipe.dumps(made)}
    adapters.write(small(), run.adapter_file, metadata=header)
    return tmp_path / "outputs"


@pytest.fixture
def comfyui(tmp_path) -> Path:
    (tmp_path / "ComfyUI" / "models" / "loras").mkdir(parents=True)
    return tmp_path / "ComfyUI"


def sent(capfd, *arguments: object) -> tuple[int, dict]:
    status = cli.main(["send", *map(str, arguments), "--json"])
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return status, json.loads(out.splitlines()[-1])


def test_an_adapter_is_sent_by_its_runs_name_and_the_folder_is_named_once(outputs, comfyui, capfd):
    """What arrives is not what was proved, or tells of private pictures."""
    to = ("--to", "comfyui", "--outputs", outputs)
    status, told = sent(capfd, "ink", *to)
    assert status == 2 and "does not know the folder of ComfyUI yet" in told["error"]["what"]
    status, told = sent(capfd, "ink", *to, "--folder", comfyui)
    file = comfyui / "models" / "loras" / "ink.safetensors"
    assert status == 0 and told["file"] == str(file) and not told["already"]
    assert [(row["target"], row["passed"]) for row in told["proof"]] == [("comfyui", True)]
    assert told["starter"] and "press R" in told["refresh"]
    assert adapters.read(file).factors.keys() >= small().factors.keys()
    header = adapters.header(file).metadata
    assert header["modelspec.trigger_phrase"] == "inkstyle" and "secret" not in str(header)
    status, told = sent(capfd, "ink", *to)
    assert status == 0 and told["already"]
    assert [path.name for path in file.parent.iterdir()] == ["ink.safetensors"]


def test_a_different_file_of_that_name_is_asked_about(outputs, comfyui, capfd):
    theirs = comfyui / "models" / "loras" / "ink.safetensors"
    theirs.write_bytes(b"theirs")
    to = ("--to", "comfyui", "--folder", comfyui, "--outputs", outputs)
    status, told = sent(capfd, "ink", *to)
    assert status == 2 and told["error"]["details"] == {"free": "ink-2", "taken": "ink"}
    assert theirs.read_bytes() == b"theirs"
    status, told = sent(capfd, "ink", *to, "--as", "ink-2")
    assert status == 0 and Path(told["file"]).name == "ink-2.safetensors" and theirs.read_bytes() == b"theirs"
    status, told = sent(capfd, "ink", *to, "--replace")
    assert status == 0 and metadata.trigger(adapters.header(theirs).metadata) == "inkstyle"


def test_an_exported_file_is_sent_as_it_is_once_it_is_proved(outputs, comfyui, tmp_path, capfd):
    """What she chose to tell in an export is lost on the way, or a file that the program cannot read arrives."""
    to = ("--to", "comfyui", "--folder", comfyui, "--as-it-is", "--outputs", outputs)
    good = adapters.write(small(), tmp_path / "told.safetensors", metadata={"modelspec.author": "Ana", "mine": "kept"})
    status, told = sent(capfd, good, *to)
    assert status == 0 and Path(told["file"]).read_bytes() == good.read_bytes()
    unread = adapters.write(small(), tmp_path / "unread.safetensors", "diffusers")
    status, told = sent(capfd, unread, *to)
    assert status == 2 and "ComfyUI would not read the export" in told["error"]["what"]
    assert [path.name for path in (comfyui / "models" / "loras").iterdir()] == ["told.safetensors"]


@pytest.mark.parametrize(
    ("name", "to", "told"),
    [
        ("inc", "comfyui", "There is no adapter named 'inc'. Did you mean ink?"),
        ("ink", "comfy", "'comfy' is no program that the studio knows."),
    ],
)
def test_a_wrong_name_is_told_with_the_right_one(outputs, capfd, name, to, told):
    assert sent(capfd, name, "--to", to, "--outputs", outputs)[0] == 2
    assert cli.main(["send", name, "--to", to, "--outputs", str(outputs)]) == 2
    error = capfd.readouterr().err
    assert told.split(" Did")[0] in error and told.rpartition(". ")[2] in error


def test_of_two_adapters_with_one_name_a_path_is_asked_for(outputs, capfd):
    adapters.write(small(), runs.library_folder(outputs) / "ink.safetensors")
    status, told = sent(capfd, "ink", "--to", "comfyui", "--outputs", outputs)
    assert status == 2 and "Several adapters are named ink." in told["error"]["what"]
    assert str(runs.library_folder(outputs) / "ink.safetensors") in told["error"]["do"]
