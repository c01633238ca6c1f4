"""Everything that the studio does without being asked for a download, done in a process that notes every word to the
outside.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lora_studio import adapters, runs
from lora_studio.config.settings import Settings
from tests.dataset import made
from tests.models import tiny

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import json, sys
asked = []
calls = ("getaddrinfo", "gethostbyname", "gethostbyaddr", "connect", "sendto", "sendmsg")

def listen(event, arguments):
    if event in [f"socket.{name}" for name in calls]:
        asked.append(f"{event} {arguments[-1] if event.startswith('socket.connect') else arguments}")
        raise OSError("there is no network")

sys.addaudithook(listen)
from lora_studio import cli
from lora_studio.jobs import worker
runs, commands = map(json.loads, sys.argv[1:])
ended = [worker.main(folder) for folder in runs]
for command in commands:
    ended.append(cli.main(command))
print(json.dumps({"asked": asked, "ended": ended}))
"""


def child(code: str, *arguments: str) -> dict:
    """Runs ``code`` as a user's own process would run, without what these tests set to stay offline; its last line of
    output.
    """
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "TRANSFORMERS_", "LORA_STUDIO_NO"))
    } | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.fault(64)
def test_the_listener_hears_a_question():
    """If this passed in silence, the next test would mean nothing."""
    heard = child(
        CHILD.partition("from lora_studio")[0]
        + "import socket, urllib.request\n"
        + "try:\n    urllib.request.urlopen('http://example.com')\nexcept OSError:\n    pass\n"
        + "print(json.dumps(asked))\n"
    )
    assert any("example.com" in one for one in heard)


@pytest.mark.fault(34, 64)
def test_training_drawing_blending_and_exporting_ask_the_network_nothing(tmp_path):
    """A library that looks for a newer version, counts its users or fetches a missing piece would do it here."""
    base, style = tiny.folder(tmp_path / "base", "sd1"), made.style_folder(tmp_path / "style", 4)
    wanted = Settings(
        data=str(style),
        base=str(base),
        name="ink",
        resolution=64,
        steps=2,
        rank=2,
        batch=2,
        device="cpu",
        preview_prompts=["a house"],
        preview_steps=1,
        preview_every=1,
        checkpoint_every=1,
    )
    run = runs.create(wanted, tmp_path / "outputs")
    ink, mix, plain, merged = (
        run.adapter_file,
        tmp_path / "mix.safetensors",
        tmp_path / "plain.safetensors",
        tmp_path / "merged",
    )
    commands = [
        ["blend", f"{ink}:0.5", f"{run.checkpoint(1) / 'adapter.safetensors'}:0.5", "-o", str(mix)],
        ["convert", str(mix), "--to", "diffusers", "-o", str(plain)],
        ["merge", str(base), f"{mix}:1", "-o", str(merged)],
        [
            "generate",
            "--prompt",
            "a house",
            "--width",
            "64",
            "--height",
            "64",
            "--base",
            str(base),
            "--adapter",
            str(mix),
            "--steps",
            "1",
            "--device",
            "cpu",
            "-o",
            str(tmp_path / "pictures"),
        ],
        ["check", str(ink)],
        ["analyze", str(ink)],
    ]
    absent = runs.create(
        Settings(data=str(style), base="someone/some-model", name="absent"), tmp_path / "other outputs"
    )
    told = child(CHILD, json.dumps([str(run.folder), str(absent.folder)]), json.dumps(commands))
    assert told == {"asked": [], "ended": [0, 1, *(0 for _ in commands)]}
    last = json.loads(absent.events_file.read_text().splitlines()[-1])
    assert last["kind"] == "failed" and "someone/some-model" in last["what"]["text"] and not last["ours"], (
        "a model that is not here is said, and not looked for"
    )
    assert adapters.read(plain).factors and (merged / "unet").is_dir() and list(run.previews.iterdir())
