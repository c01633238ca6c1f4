"""Where other programs keep their adapters, and how a file gets there."""

import json
import os
from pathlib import Path

import pytest

from lora_studio import runs
from lora_studio.errors import AdapterError, MachineError, SettingsError
from lora_studio.runs import programs, sending
from lora_studio.runs.programs import PROGRAMS, recognized


def comfyui(tmp_path: Path, inside: str = "") -> Path:
    """A ComfyUI as it is unpacked; gives the unpacked folder."""
    for folder in ("models/loras", "models/embeddings"):
        (tmp_path / "Comfy here" / inside / folder).mkdir(parents=True)
    return tmp_path / "Comfy here"


@pytest.mark.parametrize("typed", ["", "models", "models/loras"])
def test_the_folder_of_loras_is_found_from_the_programs_own(tmp_path, typed):
    """An artist types the program's folder, and her file lands where it does not look."""
    root = comfyui(tmp_path)
    found = recognized(PROGRAMS["comfyui"], f"  {root / typed} ")
    assert found == (root / "models" / "loras", "")


def test_what_an_installer_unpacked_is_looked_into(tmp_path):
    portable = comfyui(tmp_path, "ComfyUI")
    assert recognized(PROGRAMS["comfyui"], str(portable)).folder == portable / "ComfyUI" / "models" / "loras"
    (tmp_path / "forge" / "webui" / "models" / "Lora").mkdir(parents=True)
    found = recognized(PROGRAMS["forge"], str(tmp_path / "forge")).folder
    assert found == tmp_path / "forge" / "webui" / "models" / "Lora"


def test_a_folder_that_looks_wrong_is_taken_with_a_word_about_it(tmp_path):
    found = recognized(PROGRAMS["comfyui"], str(tmp_path))
    assert found.folder == tmp_path and "does not look like ComfyUI's folder of LoRAs" in found.note
    assert recognized(PROGRAMS["other"], str(tmp_path)) == (tmp_path, "")
    (tmp_path / "a.safetensors").touch()
    assert recognized(PROGRAMS["comfyui"], str(tmp_path)).note == ""


def test_a_folder_that_cannot_be_used_is_refused_in_words(tmp_path, monkeypatch):
    """Nothing tells a typing error from a drive that is not connected."""
    (tmp_path / "file").touch()
    for typed, told in (
        ("", "No folder is named."),
        (str(tmp_path / "file"), "is a file, not a folder"),
        (str(tmp_path / "comfy" / "models"), f"{tmp_path} exists, comfy in it does not."),
    ):
        with pytest.raises(SettingsError) as caught:
            recognized(PROGRAMS["comfyui"], typed)
        assert told in f"{caught.value.what} {caught.value.do}"

    def refused(self, **how):
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "touch", refused)
    with pytest.raises(SettingsError, match="Read-only file system.*make it writable"):
        recognized(PROGRAMS["comfyui"], str(tmp_path))


def test_nothing_is_left_by_looking(tmp_path):
    recognized(PROGRAMS["other"], str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_folders_are_remembered_and_a_lost_one_is_named(tmp_path):
    comfy, forge = tmp_path / "c", tmp_path / "f"
    comfy.mkdir()
    outputs = tmp_path / "outputs"
    with pytest.raises(SettingsError, match="does not know the folder of ComfyUI yet"):
        programs.folder_of(PROGRAMS["comfyui"], outputs)
    programs.remember(PROGRAMS["comfyui"], comfy, outputs)
    programs.remember(PROGRAMS["forge"], forge, outputs)
    assert programs.remembered(outputs) == {"comfyui": comfy, "forge": forge}
    assert programs.folder_of(PROGRAMS["comfyui"], outputs) == comfy
    with pytest.raises(SettingsError, match=r"The folder of Forge is not there.*Connect its disk"):
        programs.folder_of(PROGRAMS["forge"], outputs)


@pytest.mark.parametrize("content", ["[", "[]", json.dumps({"comfyui": 3, "unknown": "/x"})])
def test_a_damaged_memory_is_an_empty_one(tmp_path, content):
    runs.programs_file(tmp_path).write_text(content)
    assert programs.remembered(tmp_path) == {}


def test_an_embedding_goes_where_the_program_has_embeddings(tmp_path):
    root = comfyui(tmp_path)
    assert programs.of_embeddings(PROGRAMS["comfyui"], root / "models" / "loras") == root / "models" / "embeddings"
    (tmp_path / "forge" / "models" / "Lora").mkdir(parents=True)
    with pytest.raises(SettingsError, match="has no folder .*embeddings for it"):
        programs.of_embeddings(PROGRAMS["forge"], tmp_path / "forge" / "models" / "Lora")


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "made.safetensors"
    path.write_bytes(b"new")
    return path


@pytest.fixture
def loras(tmp_path) -> Path:
    (tmp_path / "loras").mkdir()
    return tmp_path / "loras"


def test_a_file_is_copied_once(file, loras):
    assert sending.put(file, loras, "ink") == (loras / "ink.safetensors", False)
    assert (loras / "ink.safetensors").read_bytes() == b"new"
    assert sending.put(file, loras, "ink") == (loras / "ink.safetensors", True)
    assert os.listdir(loras) == ["ink.safetensors"]


def test_a_different_file_is_never_overwritten_unasked(file, loras):
    """Sending destroys another artist's adapter that has the same name."""
    (loras / "ink.safetensors").write_bytes(b"old")
    (loras / "ink-2.safetensors").write_bytes(b"old")
    with pytest.raises(sending.NameTaken) as caught:
        sending.put(file, loras, "ink")
    assert caught.value.details == {"free": "ink-3", "taken": "ink"}
    assert (loras / "ink.safetensors").read_bytes() == b"old"
    sending.put(file, loras, "ink", replace=True)
    assert (loras / "ink.safetensors").read_bytes() == b"new"


def test_a_copy_that_fails_leaves_what_was_there(file, loras, monkeypatch):
    (loras / "ink.safetensors").write_bytes(b"old")

    def full(source, target):
        Path(target).write_bytes(b"n")
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(sending.files.shutil, "copyfile", full)
    with pytest.raises(MachineError, match="cannot be copied there: the disk is full"):
        sending.put(file, loras, "ink", replace=True)
    assert {path.name: path.read_bytes() for path in loras.iterdir()} == {"ink.safetensors": b"old"}


def test_a_folder_that_is_gone_is_not_made(file, loras):
    """An unmounted drive's mount point fills the system's disk."""
    loras.rmdir()
    with pytest.raises(AdapterError, match="is not there"):
        sending.put(file, loras, "ink")
    assert not loras.exists()
