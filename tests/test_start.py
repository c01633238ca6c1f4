"""The ways to open the studio besides a terminal: the files to double-click, the shortcut, the container, another
machine's browser.
"""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lora_studio import cli
from lora_studio.bootstrap import shortcut
from lora_studio.errors import MachineError

ROOT = Path(__file__).resolve().parent.parent


def studio_in(folder: Path) -> Path:
    """A copy of ``start.command`` beside an ``app.py`` that says how it was called."""
    folder.mkdir()
    shutil.copy(ROOT / "start.command", folder)
    (folder / "app.py").write_text("import os, sys; print(os.getcwd(), *sys.argv[1:], sep='|')")
    return folder


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_the_file_to_double_click_finds_its_own_folder_and_passes_options(tmp_path):
    place = studio_in(tmp_path / "a folder, with 'quotes'")
    done = subprocess.run([place / "start.command", "--port", "7900"], cwd="/", capture_output=True, text=True)
    assert done.stdout.strip() == f"{place}|--port|7900" and not done.stderr


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_without_python_it_says_what_is_missing(tmp_path):
    place = studio_in(tmp_path / "studio")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "dirname"):
        (tools / name).symlink_to(shutil.which(name))
    (tools / "python3").write_text("#!/bin/sh\nexit 1\n")  # an older one: the check of its version fails
    (tools / "python3").chmod(0o755)
    done = subprocess.run(
        [place / "start.command"], env={"PATH": str(tools)}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 1 and "needs Python 3.11 or newer" in done.stdout


def test_windows_has_one_too_with_line_ends_that_its_shell_reads():
    text = (ROOT / "start.bat").read_bytes()
    assert text.count(b"\n") == text.count(b"\r\n") > 10
    assert b"app.py %*" in text and b"pause" in text and b'cd /d "%~dp0"' in text


@pytest.mark.skipif(sys.platform != "linux", reason="Linux' desktop entries")
def test_the_shortcut_of_linux_opens_the_studio(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    place = studio_in(tmp_path / 'a $folder "of" 100 %')
    path = shortcut.install(place, tmp_path)
    assert path == tmp_path / ".local/share/applications/lora-studio.desktop"
    entry = configparser.RawConfigParser()
    entry.read(path)
    values = {key: value.replace("\\\\", "\\") for key, value in entry["Desktop Entry"].items()}
    command = values["exec"].replace("%%", "%")  # its quotes are those of a shell
    assert subprocess.run(command, shell=True, capture_output=True, text=True).stdout.strip() == str(place)
    assert values["path"] == str(place) and values["terminal"] == "true"
    assert shortcut.install(place, tmp_path) == path  # a second time in its place


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_the_shortcut_of_macos_opens_the_studio(tmp_path, monkeypatch):
    monkeypatch.setattr(shortcut.sys, "platform", "darwin")
    place = studio_in(tmp_path / "ana's studio")
    path = shortcut.install(place, tmp_path)
    assert path == tmp_path / "Applications" / "LoRA Studio.command"
    assert subprocess.run([path], capture_output=True, text=True).stdout.strip() == str(place)


def test_a_windows_that_makes_no_shortcut_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="Windows did not make the shortcut") as caught:
        shortcut._link(tmp_path / "a.lnk", tmp_path / "start.bat", tmp_path)
    assert "start.bat" in caught.value.do


@pytest.mark.skipif(sys.platform != "linux", reason="Linux' desktop entries")
def test_the_command_says_where_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert cli.main(["shortcut", "--json"]) == 0
    path = Path(json.loads(capsys.readouterr().out)["shortcut"])
    assert path.is_relative_to(tmp_path) and str(ROOT / "start.command") in path.read_text()


# Other machines


@pytest.fixture
def launched(monkeypatch):
    """What the page would have been served with."""
    from lora_studio.ui import studio

    calls = []
    monkeypatch.setattr(studio, "launch", lambda *given: calls.append(given))
    return calls


def test_the_login_comes_from_the_environment(launched, monkeypatch):
    monkeypatch.setenv("LORA_STUDIO_LOGIN", "ana:a:secret")
    assert cli.main(["--address", "0.0.0.0", "--no-browser"]) == 0
    assert launched[0][3:] == ("0.0.0.0", ("ana", "a:secret"))


@pytest.mark.parametrize("text", ["ana", "ana:", ":secret"])
def test_half_a_login_is_none(launched, monkeypatch, capsys, text):
    monkeypatch.setenv("LORA_STUDIO_LOGIN", text)
    assert cli.main([]) == 2 and not launched
    assert "LORA_STUDIO_LOGIN" in capsys.readouterr().err


def test_without_a_login_other_machines_get_nothing(monkeypatch, capsys):
    monkeypatch.delenv("LORA_STUDIO_LOGIN", raising=False)
    assert cli.main(["--address", "0.0.0.0", "--no-browser"]) == 2
    assert "Other machines could use the studio" in capsys.readouterr().err


# The container

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_container_copies_what_is_there_and_starts_what_is_there(launched, monkeypatch):
    copied = re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert all((ROOT / name).exists() for line in copied for name in line.split())
    entry, options = (
        json.loads(re.search(rf"^{word} (.+)$", DOCKERFILE, re.MULTILINE)[1]) for word in ("ENTRYPOINT", "CMD")
    )
    assert entry == ["python", "app.py"]
    monkeypatch.setenv("LORA_STUDIO_LOGIN", "ana:secret")
    assert cli.main(options) == 0
    assert launched[0][0] == 7860 and launched[0][3] == "0.0.0.0"


def test_the_container_takes_the_pinned_torch_first():
    pins = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("torch==")]
    assert len(pins) == 1
    assert DOCKERFILE.index("grep ^torch==") < DOCKERFILE.index("-r requirements.txt")


def test_what_is_private_or_heavy_stays_out_of_the_container():
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "outputs/*"} <= set(ignored)
