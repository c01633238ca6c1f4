"""Writes leave the old content or the new, and nothing beside it."""

import os

import pytest

from lora_studio import files


def test_writes_text_and_bytes_and_makes_the_folder(tmp_path):
    files.write(tmp_path / "a" / "b.txt", "größe")
    files.write(tmp_path / "a" / "c.bin", b"\x00\xff")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "größe".encode()
    assert (tmp_path / "a" / "c.bin").read_bytes() == b"\x00\xff"


def test_a_crash_before_the_rename_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    """Faults 39 to 41."""
    path = tmp_path / "settings.toml"
    files.write(path, "old")

    def crash(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["settings.toml"]


@pytest.mark.fault(40)
def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    """A rename that outruns its content gives an empty file after a power cut."""
    happened = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda handle: (
            happened.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file"),
            sync(handle),
        )[1],
    )
    monkeypatch.setattr(os, "replace", lambda *names: (happened.append("rename"), replace(*names))[1])
    files.write(tmp_path / "a.txt", "x")
    assert happened.index("file") < happened.index("rename") < len(happened) - 1
    assert happened[-1] == "folder"


def test_replace_gives_a_whole_folder_its_name(tmp_path):
    partial = tmp_path / "step-5.partial"
    partial.mkdir()
    (partial / "state").write_text("x")
    files.replace(partial, tmp_path / "step-5")
    assert (tmp_path / "step-5" / "state").read_text() == "x" and not partial.exists()


@pytest.mark.fault(43)
def test_only_what_nobody_holds_is_swept(tmp_path):
    (tmp_path / "deep").mkdir()
    orphans = [tmp_path / "a.bin.111.partial", tmp_path / "deep" / "b.partial", tmp_path / "step-5.111.partial"]
    orphans[0].touch(), orphans[1].touch(), orphans[2].mkdir()
    (orphans[2] / "state.111.partial").touch()
    held, others = tmp_path / "c.bin.222.partial", tmp_path / "my partial"
    held.touch(), others.touch()
    assert set(files.sweep(tmp_path, lives=lambda process: process == 222)) >= set(orphans)
    assert {path.name for path in tmp_path.rglob("*")} == {"deep", held.name, others.name}


@pytest.mark.fault(41, 56)
def test_a_disk_that_refuses_is_told_apart(tmp_path):
    """ "Errno 28" helps nobody: a full disk tells its room, a read-only one or one that is gone tells the place."""
    full = files.refusal(
        OSError(28, "No space left on device"), "The adapter could not be written", tmp_path / "not" / "yet"
    )
    assert isinstance(full, files.DiskFull) and "MB are free" in full.what
    gone = files.refusal(OSError(30, "Read-only file system", "/media/card/x"), "The run cannot go on", tmp_path)
    assert (
        not isinstance(gone, files.DiskFull) and gone.where == "/media/card/x" and "Read-only file system" in gone.what
    )


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert files.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_free_name_passes_over_what_is_there(tmp_path):
    path = tmp_path / "cat-1.png"
    assert files.free(path) == path
    path.touch()
    assert files.free(path).name == "cat-1-2.png"
    files.free(path).touch()
    assert files.free(path).name == "cat-1-3.png"
