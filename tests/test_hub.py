"""Fetching a base model, from a hub on this machine: what is asked for, what is told, what is not fetched twice."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from lora_studio import cli
from lora_studio import hub as hubs
from lora_studio.errors import MachineError, ModelError
from lora_studio.hub import Offer, fetch, look
from lora_studio.models.load import locate
from tests.models import tiny
from tests.serving_hub import serving

ROOT = Path(__file__).resolve().parents[1]
NAME = "someone/tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with half precision copies, and what nobody needs."""
    made = tiny.folder(tmp_path_factory.mktemp("hub") / "tiny", "sd1")
    for part, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        shutil.copy(made / part / f"{stem}.safetensors", made / part / f"{stem}.fp16.safetensors")
        (made / part / f"{stem}.bin").write_bytes(b"pickle")
    (made / "safety_checker").mkdir()
    (made / "safety_checker" / "model.safetensors").write_bytes(b"0" * 1000)
    (made / "v1-5-pruned.safetensors").write_bytes(b"0" * 1000)
    (made / "README.md").write_text("tiny")
    return made


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Makes a hub the one that this process knows, with an empty cache."""

    def know(hub, offline=False):
        for name, value in {
            "ENDPOINT": hub.endpoint,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": offline,
            "HF_HUB_DISABLE_XET": True,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        }.items():
            monkeypatch.setattr(constants, name, value)

    return know


def app(hub, home, *arguments, code=""):
    """The studio's command line, or ``code``, in a process that knows this hub alone."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTEST"))}
    environment |= {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "LORA_STUDIO_NO_VENV": "1",
        "NO_PROXY": "*",
    }
    return subprocess.run(
        [sys.executable, *(["-c", code] if code else ["app.py", *arguments])],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_a_model_is_told_fetched_found_again_and_never_asked_for_otherwise(folder, tmp_path):
    """Size and licence first; one set of safetensors weights, in half precision; then training finds it by its name
    without the network.
    """
    with serving(folder) as hub:
        done = app(hub, tmp_path, "download", NAME, "--json")
        assert done.returncode == 0, done.stderr
        assert f"{NAME}: 0.0" in done.stderr and "licence: openrail" in done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        got = {
            path.relative_to(told["folder"]).as_posix(): path.stat().st_size
            for path in Path(told["folder"]).rglob("*")
            if path.is_file()
        }
        assert sum(got.values()) == told["bytes"] and len(got) == told["files"]
        assert {
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "model_index.json",
            "tokenizer/vocab.json",
            "scheduler/scheduler_config.json",
        } <= set(got)
        assert not {
            path
            for path in got
            if path.endswith((".bin", ".md")) or "safety" in path or path == "unet/diffusion_pytorch_model.safetensors"
        }
        hub.asked.clear()
        code = f"from lora_studio import models; base = models.load({NAME!r}); print(base.name, base.family.name)"
        loaded = app(hub, tmp_path, code=code)
        assert loaded.stdout.split() == ["tiny", "starter"], loaded.stderr
        assert hub.asked == []


def test_looking_fetches_nothing(folder, here, capsys):
    with serving(folder) as hub:
        here(hub)
        assert cli.main(["download", NAME, "--look", "--json"]) == 0
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (
            told["licence"] == "openrail"
            and told["bytes"] > 0
            and not any("/resolve/" in path for _, path, _ in hub.asked)
        )


@pytest.mark.fault(103)
def test_a_download_that_broke_off_resumes_where_it_was(tmp_path, here):
    """Gigabytes over a bad line: a call takes a broken connection up where it was, and the next call fetches no whole
    file twice.
    """
    folder, weights = tmp_path / "model", "unet/diffusion_pytorch_model.safetensors"
    (folder / "unet").mkdir(parents=True)
    for name in ("model_index.json", "unet/config.json"):
        (folder / name).write_text("{}")
    (folder / weights).write_bytes(os.urandom(2**20) * 24)
    with serving(folder) as hub:
        here(hub)
        offer = look(NAME)
        hub.broken = {weights: [13 * 2**20]}
        found = fetch(offer)
        assert (found / weights).read_bytes() == (folder / weights).read_bytes()
        starts = [
            int(where.removeprefix("bytes=").partition("-")[0] or 0)
            for method, path, where in hub.asked
            if method == "GET" and path.endswith(weights)
        ]
        assert starts == [0, 10 * 2**20], "at most the last piece is sent again"
        hub.asked.clear()
        assert fetch(offer) == found and not [
            path for method, path, _ in hub.asked if method == "GET" and "/resolve/" in path
        ]


@pytest.mark.parametrize("status", [404, 401])
def test_what_the_hub_refuses_is_told(folder, here, status):
    with serving(folder) as hub:
        here(hub)
        hub.status = status
        with pytest.raises(ModelError, match="has no model named someone/tiny"):
            look(NAME)


def test_a_hub_that_cannot_be_reached_is_told(folder, here):
    with serving(folder) as hub:
        here(hub)
    with pytest.raises(MachineError, match="Start the command again"):
        look(NAME)


def test_nothing_is_asked_where_that_is_forbidden(folder, here):
    with serving(folder) as hub:
        here(hub, offline=True)
        with pytest.raises(MachineError, match="HF_HUB_OFFLINE"):
            look(NAME)
        assert hub.asked == []


def test_a_full_disk_is_told_before_anything_is_fetched(here, folder):
    with serving(folder) as hub:
        here(hub)
        with pytest.raises(MachineError, match="takes 10000.0 GB"):
            fetch(Offer(NAME, "", "", {"unet/x": 10**13}))
        assert hub.asked == []


def test_a_name_that_is_none_is_told(folder, here):
    with serving(folder) as hub:
        here(hub)
        with pytest.raises(ModelError, match="author/model"):
            look("a/b/c d")


def test_a_name_that_is_not_here_names_the_command():
    with pytest.raises(ModelError, match="python3 app.py download someone/nothing"):
        locate("someone/nothing")


INDEX = {"model_index.json": 1}


@pytest.mark.parametrize(("sizes", "said"), [
    ({"model.safetensors": 9}, "not in diffusers' layout"),
    ({**INDEX, "unet/config.json": 1, "unet/diffusion_pytorch_model.bin": 9}, "no safetensors weights for its unet"),
])  # fmt: skip
def test_what_cannot_be_used_is_not_fetched(sizes, said):
    with pytest.raises(ModelError, match=said):
        hubs.base_model("a/b", sizes)


def test_sharded_weights_come_with_their_index():
    """SDXL's full precision UNet lies in shards; half precision is taken where there is some."""
    sizes = {
        **INDEX,
        "unet/config.json": 1,
        "unet/diffusion_pytorch_model.safetensors.index.json": 2,
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors": 5,
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors": 6,
        "unet/diffusion_pytorch_model.non_ema.safetensors": 9,
        "vae/config.json": 1,
        "vae/diffusion_pytorch_model.fp16.safetensors": 3,
        "vae/diffusion_pytorch_model.safetensors": 6,
    }
    assert sum(hubs.base_model("a/b", sizes).values()) == 1 + 1 + 2 + 5 + 6 + 1 + 3
