"""What a model is by what its folder holds, and what is said where it cannot be used."""

from pathlib import Path

import pytest

from lora_studio.errors import ModelError
from lora_studio.vision import catalogue, local
from lora_studio.vision.catalogue import Task
from tests.vision import tiny


def touched(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("names, task, path", [
    (["config.json", "model.safetensors"], Task.SENTENCES, ""),
    (["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], Task.SENTENCES, ""),
    (["model.onnx", "selected_tags.csv", "config.json", "model.safetensors"], Task.TAGS, "model.onnx"),
    (["u2netp.onnx"], Task.MASKS, "u2netp.onnx"),
    (["config.json", "onnx/model.onnx", "onnx/model_fp16.onnx"], Task.MASKS, "onnx/model.onnx"),
])  # fmt: skip
def test_a_folder_is_what_its_files_say(tmp_path, names, task, path):
    """SmilingWolf's taggers hold safetensors of another program too."""
    folder = touched(tmp_path / "ink", *names)
    assert local.find(str(folder)) == (folder / path, "ink", task)


def test_a_file_is_a_tagger_if_its_tags_lie_beside_it(tmp_path):
    touched(tmp_path, "a/u2net.onnx", "b/model.onnx", "b/selected_tags.csv")
    assert local.find(str(tmp_path / "a" / "u2net.onnx")).task is Task.MASKS
    assert local.find(str(tmp_path / "b" / "model.onnx")).task is Task.TAGS


@pytest.mark.parametrize("names, said", [
    (["config.json", "pytorch_model.bin"], "pickled weights"),
    (["a.txt"], "no model that looks at pictures"),
    (["model.safetensors"], "no model that looks at pictures"),
    (["a.onnx", "b.onnx"], "several .onnx files: a.onnx, b.onnx"),
    (["selected_tags.csv"], "holds no .onnx file"),
])  # fmt: skip
def test_a_folder_that_cannot_be_used_is_told(tmp_path, names, said):
    with pytest.raises(ModelError, match=said):
        local.find(str(touched(tmp_path / "ink", *names)))


def test_another_file_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"is no .onnx file"):
        local.find(str(touched(tmp_path, "ink.safetensors") / "ink.safetensors"))


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("key", [model.key for model in catalogue.MODELS])
def test_a_model_that_is_not_here_names_what_it_takes_and_the_command(empty_cache, key):
    offered = catalogue.named(key)
    with pytest.raises(ModelError, match=f"app.py download {offered.hub}") as caught:
        local.find(key)
    assert offered.licence in caught.value.do and caught.value.details == {"download": offered.hub}


def test_a_name_on_the_hub_that_is_not_here_names_the_command(empty_cache):
    with pytest.raises(ModelError, match="app.py download someone/tiny"):
        local.find("someone/tiny")


def test_what_is_neither_is_told():
    with pytest.raises(ModelError, match="There is no model at nothing-here"):
        local.find("nothing-here")


def test_a_folder_of_the_same_name_does_not_hide_a_model_of_the_catalogue(tmp_path, monkeypatch, empty_cache):
    touched(tmp_path / "blip", "config.json", "model.safetensors")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="Salesforce/blip"):
        local.find("blip")
    assert local.find("./blip").task is Task.SENTENCES


def test_each_key_and_each_hub_name_is_one_model():
    names = [one for model in catalogue.MODELS for one in (model.key, model.hub)]
    assert len(set(names)) == len(names)
    assert [catalogue.named(model.hub) for model in catalogue.MODELS] == list(catalogue.MODELS)


def test_the_tiny_models_are_found_as_what_they_are(tmp_path):
    assert local.find(str(tiny.wd14(tmp_path / "wd").parent)).task is Task.TAGS


def test_the_table_of_the_documentation_is_the_catalogue():
    text = (Path(__file__).resolve().parents[2] / "docs" / "captions.md").read_text("utf-8")
    for model in catalogue.MODELS:
        size = f"{model.size / 1e9:.1f} GB" if model.size else "see `--look`"
        row = f"| `{model.key}` | `{model.hub}` | {model.task} | {model.licence} | {size} |"
        assert (row in text) is (model.task is not Task.MASKS)
