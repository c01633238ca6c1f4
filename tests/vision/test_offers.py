"""What of a model on the hub is downloaded, from a hub on this machine, and that it is found and works afterwards."""

import os
import time

import pytest
from huggingface_hub import constants
from PIL import Image

from lora_studio import hub
from lora_studio.errors import ModelError, StudioError
from lora_studio.jobs import model_downloads
from lora_studio.vision import captioners, local, offers
from lora_studio.vision.catalogue import Task
from lora_studio.vision.options import SentenceOptions
from lora_studio.vision.segmenters import U2Net
from lora_studio.vision.taggers import Tagger
from tests.serving_hub import serving
from tests.vision import tiny

NAME = "someone/tiny"
WHITE = [Image.new("RGB", (8, 8), "white")]


@pytest.fixture
def known(tmp_path, monkeypatch):
    """Makes a hub the one that this process and its children know, with an empty cache."""

    def know(served):
        for name, value in {
            "ENDPOINT": served.endpoint,
            "HF_HUB_CACHE": str(tmp_path / "home" / "hub"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HUGGINGFACE_CO_URL_TEMPLATE": served.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("NO_PROXY", "*")

    return know


def captioner(folder):
    made = tiny.qwen3(folder)
    (made / "pytorch_model.bin").write_bytes(b"pickle")
    (made / "README.md").write_text("tiny")
    return made


def tagger(folder):
    """As SmilingWolf's, with the weights of another program beside."""
    made = tiny.wd14(folder).parent
    for name in ("config.json", "model.safetensors", "model.msgpack"):
        (made / name).write_text("{}")
    return made


def segmenter(folder):
    tiny.u2net(folder / "onnx" / "model.onnx")
    (folder / "onnx" / "model_fp16.onnx").write_bytes(b"half")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("make, task, left, use", [
    (captioner, Task.SENTENCES, {"pytorch_model.bin", "README.md"},
     lambda found: captioners.load(found.path, SentenceOptions(max_tokens=3)).caption(WHITE)),
    (tagger, Task.TAGS, {"config.json", "model.safetensors", "model.msgpack"},
     lambda found: Tagger(found.path).score(WHITE)),
    (segmenter, Task.MASKS, {"onnx/model_fp16.onnx"}, lambda found: U2Net(found.path).mask(WHITE[0])),
])  # fmt: skip
def test_what_is_read_is_downloaded_found_by_its_name_and_works(tmp_path, known, make, task, left, use):
    folder = make(tmp_path / "model")
    with serving(folder) as served:
        known(served)
        with pytest.raises(ModelError, match="was not downloaded yet"):
            local.find(NAME)
        offer = offers.look(NAME)
        assert set(served.files()) - set(offer.files) == left and offer.licence == "openrail"
        hub.fetch(offer)
        assert hub.fetched(NAME) == offer.size
        served.asked.clear()
        found = local.find(NAME)
        assert found.task is task and use(found)
        assert served.asked == []


@pytest.mark.parametrize("sizes, said", [
    ({"config.json": 1, "pytorch_model.bin": 9}, "no safetensors weights and no ONNX file"),
    ({"a.onnx": 1, "b.onnx": 1}, "several ONNX files"),
    ({"unet/config.json": 1}, "not in diffusers' layout"),
])  # fmt: skip
def test_what_cannot_be_used_is_not_downloaded(sizes, said):
    with pytest.raises(ModelError, match=said):
        offers._either("a/b", sizes)


@pytest.mark.parametrize("sizes, files", [
    ({"config.json": 1, "model.safetensors": 9, "model.onnx": 5, "tokenizer.json": 1, "tf_model.h5": 9},
     {"config.json", "model.safetensors", "tokenizer.json"}),
    ({"config.json": 1, "model-00001-of-00002.safetensors": 9, "model-00002-of-00002.safetensors": 9,
      "model.safetensors.index.json": 1, "merges.txt": 1},
     {"config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
      "model.safetensors.index.json", "merges.txt"}),
    ({"model.onnx": 1, "model.onnx_data": 9, "selected_tags.csv": 1, "a.onnx": 1},
     {"model.onnx", "model.onnx_data", "selected_tags.csv"}),
    ({"model_index.json": 1, "config.json": 1}, {"model_index.json"}),
])  # fmt: skip
def test_one_set_of_weights_is_enough(sizes, files):
    assert set(offers._either("a/b", sizes)) == files


@pytest.mark.fault(103)
def test_the_page_downloads_in_a_process_that_can_be_ended_and_goes_on(tmp_path, known):
    """What comes stops coming, and she cancels; the next download asks for the rest alone."""
    folder, large = tagger(tmp_path / "model"), "model.onnx_data"
    weights = os.urandom(2**20) * 12
    (folder / large).write_bytes(weights)
    with serving(folder) as served:
        known(served)
        offer = model_downloads.look(NAME)
        assert offer == model_downloads.HubOffer(NAME, offers.look(NAME).size, 3, "openrail")
        served.slow[large] = 11 * 2**20  # it is written in pieces of ten megabytes
        download = model_downloads.start(NAME)
        assert model_downloads.start(NAME) is download
        until(lambda: download.done > 2**20)
        download.cancel()
        assert download.ended and not download.folder and download.error is None
        served.slow.clear()
        served.asked.clear()
        download = model_downloads.start(NAME)
        until(lambda: download.ended)
        assert download.error is None and download.done == download.total == offer.size
        asked = [where for how, path, where in served.asked if how == "GET" and path.endswith(large)]
        assert asked == ["bytes=10485760-"] and (local.find(NAME).path.parent / large).read_bytes() == weights
        assert local.find(NAME).path.parent.samefile(download.folder)
        assert model_downloads.latest(NAME) is download


def until(true):
    end = time.monotonic() + 300
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_download_that_fails_says_why(tmp_path, known):
    with serving(tagger(tmp_path / "model")) as served:
        known(served)
        served.status = 404
        with pytest.raises(StudioError, match="has no model named someone/tiny"):
            model_downloads.look(NAME)
        download = model_downloads.ModelDownload(NAME)
        until(lambda: download.ended)
        assert "has no model named someone/tiny" in str(download.error) and not download.folder
