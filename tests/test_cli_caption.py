"""``caption``: what is written, what is shown, what is asked before, and what is said where it cannot work."""

import json
import signal
import threading
import time

import pytest
from PIL import Image

from lora_studio import cli, runs
from lora_studio.jobs import captioning
from lora_studio.locks import Lock
from tests.vision import tiny

WHITE = "rose (flower), hatsune miku, >_<"
"""What the tiny tagger says of a white picture above a score of 0.5, without the word about the medium."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny.wd14(tmp_path_factory.mktemp("tagger") / "wd").parent)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "ink"
    folder.mkdir()
    for name in "abc":
        Image.new("RGB", (80, 80), "white").save(folder / f"{name}.png")
    (folder / "b.txt").write_text("a boat by hand")
    return folder


@pytest.fixture
def call(data, model, tmp_path, capsys):
    """Runs the command on the folder; returns its exit status and what it printed as JSON."""

    def run(*options, using=model):
        words = ["caption", str(data), *(["--with", using] if using else []), "--outputs", str(tmp_path / "outputs")]
        status = cli.main([*words, "--general", "0.5", *options, "--json"])
        out, err = capsys.readouterr()
        return status, json.loads(out.splitlines()[-1]), err

    return run


def test_empty_captions_are_filled(call, data):
    status, told, err = call("--fill", "--yes")
    assert status == 0, err
    assert told["written"] == ["a.png", "c.png"] and told["captions"] == {"a.png": WHITE, "c.png": WHITE}
    assert [(data / f"{name}.txt").read_text().strip() for name in "abc"] == [WHITE, "a boat by hand", WHITE]
    status, told, _ = call("--fill")
    assert status == 0 and told["written"] == [] and told["captioned"] == 0, "consent is asked once, captions made once"


def test_words_about_the_medium_and_tags_that_she_names_are_left_out(call):
    status, told, _ = call("--propose", "--keep-style", "--never", "Hatsune_Miku", "--never", "rose (flower)")
    assert status == 0 and set(told["captions"].values()) == {"watercolor (medium), >_<"}


def test_proposals_are_shown_and_accepted(call, data):
    status, told, _ = call("--propose")
    assert status == 0 and len(told["captions"]) == 3 and told["written"] == []
    assert not (data / "a.txt").exists() and not (data / ".lora_studio").exists()
    status, told, _ = call("--accept", "--yes", using="")
    assert status == 0 and sorted(told["written"]) == ["a.png", "b.png", "c.png"]
    assert (data / "b.txt").read_text().strip() == WHITE
    status, told, _ = call("--accept", using="")
    assert status == 2 and "No captions wait" in told["error"]["what"]


def test_a_dry_run_lists_the_pictures_and_starts_nothing(call, data, tmp_path):
    status, told, _ = call("--dry-run")
    assert status == 0 and told == {"model": "wd", "pictures": ["a.png", "c.png"]}
    assert captioning.jobs(tmp_path / "outputs") == [] and not (data / ".lora_studio").exists()


def test_tags_are_appended(call, data):
    assert call("--append", "--yes")[0] == 0
    assert (data / "b.txt").read_text().strip() == f"a boat by hand, {WHITE}"


def test_ctrl_c_keeps_what_is_done(call, data, tmp_path):
    """Here the job is still waiting for the device, so it is nothing; the same command goes on with the same job."""
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    device = Lock(runs.device_lock(outputs))
    assert device.acquire()

    usual = signal.getsignal(signal.SIGINT)

    def interrupt():
        while signal.getsignal(signal.SIGINT) is usual:  # the command is following its job then
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    status, told, err = call("--yes")
    assert status == 0 and told["stopped"] and told["written"] == [] and "Stopping" in err
    device.release()
    status, again, _ = call()
    assert status == 0 and again["job"] == told["job"] and again["written"] == ["a.png", "c.png"]


@pytest.mark.parametrize("options, using, said", [
    ([], "", "No model was named"),
    ([], "nowhere", "There is no model at nowhere"),
    ([], "someone/nothing", "app.py download someone/nothing"),
    ([], None, "was not allowed yet to write"),
    (["--fill", "--append"], None, "exclude each other"),
    (["--beams", "99"], None, "--beams"),
    (["--character", "2"], None, "--character"),
])  # fmt: skip
def test_what_cannot_be_done_is_told(call, model, options, using, said):
    status, told, err = call(*options, using=model if using is None else using)
    assert status == 2 and said in err and told["error"]["do"]


def test_a_model_that_is_not_here_tells_its_size_and_licence(call, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    _, told, _ = call(using="wd14")
    assert "0.4 GB" in told["error"]["do"] and "Apache-2.0" in told["error"]["do"]
    assert "python3 app.py download SmilingWolf/wd-vit-tagger-v3" in told["error"]["do"]
