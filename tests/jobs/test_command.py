"""Commands that the page lets a process of their own do."""

import json
import subprocess
import sys
from gettext import NullTranslations
from pathlib import Path

import pytest

from lora_studio import adapters, language
from lora_studio.errors import MachineError, StudioError
from lora_studio.jobs import command
from lora_studio.language import catalogue
from tests.adapters.adapter_samples import small


@pytest.mark.fault(19)
def test_a_command_gives_its_result_whatever_the_file_is_called(tmp_path):
    """A shell between would read the name."""
    file = adapters.write(small(), tmp_path / 'my "été"; $(touch x) & 猫.safetensors')
    told = command.run("inspect", file)
    assert Path(told["path"]) == file and told["family"] == "starter"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_commands_mistake_is_told_as_it_told_it(tmp_path):
    with pytest.raises(StudioError, match="There is no adapter") as caught:
        command.run("inspect", tmp_path / "none.safetensors")
    assert caught.value.where == "FILE" and caught.value.do


def test_the_mistake_of_a_command_is_told_in_the_readers_language(tmp_path, monkeypatch):
    """The process of the command speaks English; what the page shows of it stayed English."""
    monkeypatch.setattr(catalogue, "translations", lambda language: Quoting())
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"nothing")
    with language.using("de"), pytest.raises(StudioError) as caught:
        command.run("inspect", damaged)
    assert str(caught.value.what).startswith("»") and str(caught.value.do) == "»Download or copy it again.«"


def test_a_command_that_hangs_is_ended(tmp_path):
    with pytest.raises(MachineError, match="longer than 0.01 seconds"):
        command.run("inspect", tmp_path, timeout=0.01)


@pytest.mark.parametrize("out", ["", "\n", "Killed", "[1, 2]", '{"half": '])
def test_an_end_without_a_result_is_no_exit_code_to_the_user(out, capfd):
    """A process that was killed for its memory says nothing; what its libraries said is for the studio's window."""
    with pytest.raises(MachineError, match="without a result") as caught:
        command.result("blend", out, "libgomp: no memory")
    assert caught.value.where == "blend" and "memory" in caught.value.do
    assert "libgomp" in capfd.readouterr().err


def test_only_the_last_line_counts():
    assert command.result("blend", 'a library speaks\n{"file": "a"}\n') == {"file": "a"}


def test_details_of_a_mistake_arrive():
    """The page shows which program's proof failed."""
    told = {"error": {"what": "No.", "where": "x", "do": "Y.", "details": {"proof": [{"target": "peft"}]}}}
    with pytest.raises(StudioError) as caught:
        command.result("convert", json.dumps(told))
    assert caught.value.details == told["error"]["details"] and str(caught.value) == "No. [x] Y."


def test_a_process_that_cannot_be_started_is_said(monkeypatch):
    def refuse(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    for name, start in (("run", command.run), ("Popen", command.CommandProcess)):
        monkeypatch.setattr(subprocess, name, refuse)
        with pytest.raises(MachineError, match="Cannot allocate memory"):
            start("inspect", "x")


class Quoting(NullTranslations):
    """A language that is English in quotation marks."""

    def gettext(self, message: str) -> str:
        return f"»{super().gettext(message)}«"


def played(monkeypatch, code: str) -> command.CommandProcess:
    """A command of the test's own."""
    monkeypatch.setattr(command, "_line", lambda name, arguments: [sys.executable, "-c", code])
    return command.CommandProcess("train", "x")


@pytest.mark.parametrize("whole", [True, False])
def test_a_command_can_be_ended_and_then_has_no_result(monkeypatch, whole):
    """A check that the user does not want any more holds the device on; ended twice or too late, it does not fail."""
    work = played(
        monkeypatch,
        "print('a library speaks'); print('{\"a\": 1}', flush=True)"
        + ("" if whole else "; import time; time.sleep(60)"),
    )
    came = work.objects()
    assert next(came) == {"a": 1}, "it comes while the command is at work"
    if whole:
        assert list(came) == []
    work.end()
    work.end()
    assert list(came) == [] and work._process.returncode is not None


@pytest.mark.parametrize(
    "code",
    ["print('{\"estimated\": 1}', flush=True); import os; os.abort()", "print('{\"a\": 1}'); print('Killed')", ""],
)
def test_an_end_in_the_middle_is_no_result(monkeypatch, code, capfd):
    """The last thing that a process said before the system killed it passes for what it found."""
    with pytest.raises(MachineError, match="without a result"):
        list(played(monkeypatch, code).objects())


def test_a_mistake_is_told_by_a_command_that_is_followed(monkeypatch):
    told = json.dumps({"error": {"what": "No.", "where": "x", "do": "Y."}})
    with pytest.raises(StudioError) as caught:
        list(played(monkeypatch, f"print('{{\"a\": 1}}'); print({told!r}); raise SystemExit(2)").objects())
    assert (caught.value.what, caught.value.where, caught.value.do) == ("No.", "x", "Y.")
