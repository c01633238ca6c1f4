"""Row 17: archives that lead elsewhere, explode or lie are refused whole, and leave nothing behind."""

import io
import struct
import zipfile

import pytest

from lora_studio.dataset import archive
from lora_studio.dataset.archive import unpack
from lora_studio.dataset.folder import scan
from lora_studio.errors import DatasetError, MachineError
from tests.dataset import made


def png(seed: int = 0) -> bytes:
    out = io.BytesIO()
    made.painted(seed=seed).save(out, "PNG")
    return out.getvalue()


def packed(path, entries, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return path


def refused(tmp_path, source, said):
    with pytest.raises(DatasetError, match=said) as raised:
        unpack(source, tmp_path / "into" / "style")
    assert raised.value.where == source.name and raised.value.do
    assert not (tmp_path / "into").exists() or list((tmp_path / "into").iterdir()) == []


def test_a_packed_folder_is_unpacked_and_found(tmp_path):
    """Most programs pack the folder itself, and macOS adds its own files."""
    source = packed(
        tmp_path / "a.zip",
        {
            "my style/": "",
            "my style/a.png": png(),
            "my style/a.txt": "ink",
            "__MACOSX/my style/._a.png": "x",
            "my style/.DS_Store": "x",
        },
    )
    folder = unpack(source, tmp_path / "style")
    assert folder == tmp_path / "style" / "my style" and sorted(path.name for path in folder.iterdir()) == [
        "a.png",
        "a.txt",
    ]
    assert scan(folder).pictures[0].caption == "ink" and not list(tmp_path.glob("*.partial"))


def test_packed_files_and_repeat_folders_keep_their_places(tmp_path):
    assert unpack(packed(tmp_path / "a.zip", {"a.png": png()}), tmp_path / "one") == tmp_path / "one"
    assert scan(unpack(packed(tmp_path / "b.zip", {"5_ink/a.png": png()}), tmp_path / "two")).pictures[0].repeats == 5


@pytest.mark.fault(17, 61)
@pytest.mark.parametrize(
    "name",
    [
        "../a.png",
        "x/../../a.png",
        "/etc/a.png",
        "C:/a.png",
        "C:\\a.png",
        "\\\\server\\a.png",
        "..\\a.png",
        "..",
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    refused(tmp_path, packed(tmp_path / "a.zip", {"good.png": png(), name: b"x"}), "leads out of its folder")
    assert not (tmp_path / "a.png").exists() and not (tmp_path.parent / "a.png").exists()


@pytest.mark.fault(61)
@pytest.mark.parametrize(
    "name", ["a.png::$DATA", "12:30.png", "a\nb.png", "x//a.png", "./a.png", "x./a.png", "x /a.png"]
)
def test_names_that_not_every_system_stores_are_no_attack(tmp_path, name):
    """Screenshots of a Mac have times in their names."""
    with pytest.raises(DatasetError, match="not every system can store") as raised:
        unpack(packed(tmp_path / "a.zip", {"good.png": png(), name: b"x"}), tmp_path / "style")
    assert raised.value.do == "Rename it and pack the pictures again." and not (tmp_path / "style").exists()


def test_backslashes_of_windows_programs_are_folders(tmp_path):
    """It was called an attack."""
    entries = {"style\\": "", "style\\2_ink\\a.png": png(), "style\\2_ink\\a.txt": "ink", "style\\b.png": png(1)}
    source = packed(tmp_path / "a.zip", entries)
    dataset = scan(unpack(source, tmp_path / "out"))
    assert {dataset.name(one): (one.repeats, one.caption) for one in dataset.pictures} == {
        "2_ink/a.png": (2, "ink"),
        "b.png": (1, ""),
    }


def test_one_name_in_both_spellings_is_refused(tmp_path):
    refused(tmp_path, packed(tmp_path / "a.zip", {"x/a.png": png(), "x\\a.png": png(1)}), "two files of the same name")


@pytest.mark.fault(17)
def test_a_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("a.png")
    link.external_attr = 0o120777 << 16
    refused(tmp_path, packed(tmp_path / "a.zip", {link: "/etc/passwd"}), "a link")


@pytest.mark.fault(61)
def test_two_files_of_one_name_are_refused_even_if_only_their_case_differs(tmp_path):
    refused(tmp_path, packed(tmp_path / "a.zip", {"a.png": png(), "A.png": png(1)}), "two files of the same name")


@pytest.mark.fault(17)
def test_a_bomb_is_refused_from_its_header(tmp_path):
    refused(tmp_path, packed(tmp_path / "a.zip", {"a.bmp": bytes(30_000_000)}), "200 times")


@pytest.mark.fault(17)
def test_a_bomb_whose_header_lies_is_refused_while_it_unpacks(tmp_path):
    source = packed(tmp_path / "a.zip", {"a.bmp": bytes(30_000_000)})
    real, claimed = struct.pack("<I", 30_000_000), struct.pack("<I", 1000)
    source.write_bytes(source.read_bytes().replace(real, claimed))
    refused(tmp_path, source, "damaged|200 times")


@pytest.mark.fault(17)
def test_too_many_bytes_and_files_are_refused(tmp_path, monkeypatch):
    source = packed(tmp_path / "a.zip", {f"{index}.png": png(index) for index in range(4)}, zipfile.ZIP_STORED)
    monkeypatch.setattr(archive, "MAX_BYTES", len(png()) * 2)
    refused(tmp_path, source, "more than 0 GiB")
    monkeypatch.setattr(archive, "MAX_FILES", 3)
    refused(tmp_path, source, "contains 4 files")


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: b"words", lambda data: data[:-40], lambda data: data[:60] + bytes(40) + data[100:]],
)
def test_what_is_no_archive_or_a_torn_one_is_said(tmp_path, damage):
    source = packed(tmp_path / "a.zip", {"a.png": png(), "b.png": png(1)})
    source.write_bytes(damage(source.read_bytes()))
    refused(tmp_path, source, "damaged")


@pytest.mark.fault(17)
@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_uncommon_ways_of_packing_are_refused(tmp_path, method):
    """Found by fuzzing: a damaged LZMA stream raised an error of its own kind; and an LZMA file says itself how much
    memory it needs.
    """
    refused(tmp_path, packed(tmp_path / "a.zip", {"a.png": png()}, method), "unsupported method")


def test_a_file_without_a_name_is_refused(tmp_path):
    """Found by fuzzing: the library stumbles over it."""
    source = packed(tmp_path / "a.zip", {"a.png": png()})
    data = bytearray(source.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 28 : at + 30] = b"\0\0"
    source.write_bytes(data[: at + 46] + data[at + 46 + len("a.png") :])
    refused(tmp_path, source, "damaged")


def test_an_encrypted_one_is_said(tmp_path):
    source = packed(tmp_path / "a.zip", {"a.png": png()})
    data = bytearray(source.read_bytes())
    for at in (6, data.index(b"PK\x01\x02") + 8):
        data[at] |= 1
    source.write_bytes(data)
    refused(tmp_path, source, "^The ZIP has a password")


def test_what_is_there_already_is_never_overwritten(tmp_path):
    made.style_folder(tmp_path / "style", 1)
    with pytest.raises(DatasetError, match="exists already"):
        unpack(packed(tmp_path / "a.zip", {"0.png": png(9)}), tmp_path / "style")
    assert len(list((tmp_path / "style").iterdir())) == 2


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "_extract", full)
    with pytest.raises(MachineError, match="the disk is full"):
        unpack(packed(tmp_path / "a.zip", {"a.png": png()}), tmp_path / "style")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
