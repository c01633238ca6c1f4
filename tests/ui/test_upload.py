"""Uploaded pictures become a folder; what an archive may not do (faults 17 and 61)."""

import stat
import zipfile

import pytest

from lora_studio import files
from lora_studio.dataset import intake
from lora_studio.errors import DatasetError, MachineError
from lora_studio.ui.pages.train import upload


def zipped(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_pictures_and_captions_are_kept_in_folders_with_repeats(tmp_path):
    """A ZIP made for kohya's scripts loses its repeats; a Mac's extras become broken pictures."""
    entries = {
        "My Style/10_ink/a.png": b"1",
        "My Style/10_ink/a.txt": b"2",
        "__MACOSX/._a.png": b"3",
        "notes.docx": b"4",
        "b.JPG": b"5",
    }
    source = zipped(tmp_path / "My Style.zip", entries)
    folder = upload.keep([source], tmp_path).folder
    assert folder == tmp_path / "pictures" / "My-Style" and names(folder) == ["10_ink/a.png", "10_ink/a.txt", "b.JPG"]


@pytest.mark.fault(19, 61)
def test_loose_files_get_safe_names_and_a_new_folder(tmp_path):
    """A second upload overwrites the first."""
    (tmp_path / "CON.png").write_bytes(b"1")
    first, second = (upload.keep([tmp_path / "CON.png"], tmp_path).folder for _ in range(2))
    assert first != second and names(first) == names(second) == ["run-CON.png"]


@pytest.mark.fault(17, 61)
@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\evil.png"])
def test_a_zip_that_leads_out_is_refused(tmp_path, name):
    """An archive writes where it likes."""
    with pytest.raises(DatasetError, match="leads out"):
        upload.keep([zipped(tmp_path / "x.zip", {name: b"1"})], tmp_path)
    assert not (tmp_path / "evil.png").exists() and not list((tmp_path / "pictures").iterdir())


@pytest.mark.fault(17)
def test_a_zip_bomb_is_refused(tmp_path):
    """A few kilobytes fill the disk."""
    with pytest.raises(DatasetError, match="would unpack"):
        upload.keep([zipped(tmp_path / "x.zip", {"a.png": bytes(20_000_000)})], tmp_path)
    assert not list((tmp_path / "pictures").iterdir())


@pytest.mark.fault(17)
def test_a_link_in_a_zip_is_refused(tmp_path):
    """A link in an archive shows the page a file of the user's."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        entry = zipfile.ZipInfo("a.png")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(DatasetError, match="a link"):
        upload.keep([tmp_path / "x.zip"], tmp_path)
    assert not list((tmp_path / "pictures").iterdir())


@pytest.mark.parametrize("content", [b"", b"PK no zip"])
def test_a_damaged_zip_is_named(tmp_path, content):
    """A broken download shows "Error"."""
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(DatasetError, match="x.zip"):
        upload.keep([tmp_path / "x.zip"], tmp_path)


def test_too_many_files_at_once_are_refused(tmp_path, monkeypatch):
    """A folder of a hundred thousand files is dropped on the page."""
    monkeypatch.setattr(upload, "MOST_FILES", 1)
    with pytest.raises(DatasetError, match="2 files at once are too many"):
        upload.keep([tmp_path / "a.png", tmp_path / "b.png"], tmp_path)
    assert not (tmp_path / "pictures").exists()


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    """A half-kept upload looks like a folder of the user's."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(intake.shutil, "copyfile", full)
    (tmp_path / "a.png").touch()
    with pytest.raises(files.DiskFull, match="upload could not be kept: the disk is full"):
        upload.keep([tmp_path / "a.png"], tmp_path)
    assert not list((tmp_path / "pictures").iterdir())


@pytest.mark.fault(56)
def test_an_outputs_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "outputs").write_text("a file")
    (tmp_path / "a.png").touch()
    with pytest.raises(MachineError, match="upload could not be kept") as raised:
        upload.keep([tmp_path / "a.png"], tmp_path / "outputs")
    assert "outputs" in raised.value.where


def test_an_empty_zip_says_so(tmp_path):
    """An archive of other things silently becomes an empty dataset."""
    with pytest.raises(DatasetError, match="no pictures"):
        upload.keep([zipped(tmp_path / "x.zip", {"a.docx": b"1"})], tmp_path)
