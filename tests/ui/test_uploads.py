"""Uploaded pictures become a folder; what an archive may not do (faults 17 and 61)."""

import json
import stat
import time
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from lora_studio import files
from lora_studio.curation.workbench import Workbench
from lora_studio.dataset import intake, preparation
from lora_studio.dataset.intake import Item
from lora_studio.dataset.preparation import FolderOptions, Preparation
from lora_studio.errors import DatasetError, MachineError
from lora_studio.ui import images
from lora_studio.ui.pages.pictures import uploads


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
    folder = uploads.keep([source], tmp_path).folder
    assert folder == tmp_path / "pictures" / "My Style" and names(folder) == ["10_ink/a.png", "10_ink/a.txt", "b.JPG"]


@pytest.mark.fault(19, 61)
def test_loose_files_get_safe_names_and_a_new_folder(tmp_path):
    """A second upload overwrites the first."""
    (tmp_path / "CON.png").write_bytes(b"1")
    first, second = (uploads.keep([tmp_path / "CON.png"], tmp_path).folder for _ in range(2))
    assert first != second and names(first) == names(second) == ["run-CON.png"]


@pytest.mark.fault(17, 61)
@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\evil.png"])
def test_a_zip_that_leads_out_is_refused(tmp_path, name):
    """An archive writes where it likes."""
    with pytest.raises(DatasetError, match="leads out"):
        uploads.keep([zipped(tmp_path / "x.zip", {name: b"1"})], tmp_path)
    assert not (tmp_path / "evil.png").exists() and not list((tmp_path / "pictures").iterdir())


@pytest.mark.fault(17)
def test_a_zip_bomb_is_refused(tmp_path):
    """A few kilobytes fill the disk."""
    with pytest.raises(DatasetError, match="would unpack"):
        uploads.keep([zipped(tmp_path / "x.zip", {"a.png": bytes(20_000_000)})], tmp_path)
    assert not list((tmp_path / "pictures").iterdir())


@pytest.mark.fault(17)
def test_a_link_in_a_zip_is_refused(tmp_path):
    """A link in an archive shows the page a file of the user's."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        entry = zipfile.ZipInfo("a.png")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(DatasetError, match="a link"):
        uploads.keep([tmp_path / "x.zip"], tmp_path)
    assert not list((tmp_path / "pictures").iterdir())


@pytest.mark.parametrize("content", [b"", b"PK no zip"])
def test_a_damaged_zip_is_named(tmp_path, content):
    """A broken download shows "Error"."""
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(DatasetError, match="x.zip"):
        uploads.keep([tmp_path / "x.zip"], tmp_path)


def test_too_many_files_at_once_are_refused(tmp_path, monkeypatch):
    """A folder of a hundred thousand files is dropped on the page."""
    monkeypatch.setattr(uploads, "MOST_FILES", 1)
    with pytest.raises(DatasetError, match="2 files at once are too many"):
        uploads.keep([tmp_path / "a.png", tmp_path / "b.png"], tmp_path)
    assert not (tmp_path / "pictures").exists()


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    """A half-kept upload looks like a folder of the user's."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(intake.shutil, "copyfile", full)
    (tmp_path / "a.png").touch()
    with pytest.raises(files.DiskFull, match="upload could not be kept: the disk is full"):
        uploads.keep([tmp_path / "a.png"], tmp_path)
    assert not list((tmp_path / "pictures").iterdir())


@pytest.mark.fault(56)
def test_an_outputs_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "outputs").write_text("a file")
    (tmp_path / "a.png").touch()
    with pytest.raises(MachineError, match="upload could not be kept") as raised:
        uploads.keep([tmp_path / "a.png"], tmp_path / "outputs")
    assert "outputs" in raised.value.where


def test_an_empty_zip_says_so(tmp_path):
    """An archive of other things silently becomes an empty dataset."""
    with pytest.raises(DatasetError, match="no pictures"):
        uploads.keep([zipped(tmp_path / "x.zip", {"a.docx": b"1"})], tmp_path)


def test_only_uploads_of_the_studio_are_taken(tmp_path):
    """A page of another site has the studio copy any file of this machine into a dataset."""
    here = images.uploads(tmp_path) / "ab12"
    here.mkdir(parents=True)
    (here / "a.png").write_bytes(b"1")
    (tmp_path / "secret.png").write_bytes(b"2")
    (item,) = uploads.received([{"path": str(here / "a.png"), "name": "../My Style/./10_ink/a.png"}], tmp_path)
    assert item == (here / "a.png", PurePosixPath("My Style/10_ink/a.png"))
    for path in (tmp_path / "secret.png", here / "../../../../secret.png", here, here / "gone.png"):
        with pytest.raises(DatasetError, match="missing"):
            uploads.received([{"path": str(path), "name": "a.png"}], tmp_path)


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["My Style/a.png", "My Style/10_ink/b.png"], "My Style"),
        (["ink_01.png", "ink_02.png"], "ink"),
        (["Harbour.zip"], "Harbour"),
        (["a/1.png", "b/2.png"], time.strftime("upload-%Y-%m-%d")),
    ],
)
def test_a_name_is_suggested(names, name):
    assert uploads.suggested([Item(Path(one), PurePosixPath(one)) for one in names]) == name


def test_a_dropped_folder_keeps_its_repeats_and_choices(tmp_path):
    """A folder that was prepared loses its crops where it is dropped, unlike in a ZIP."""
    source = tmp_path / "dropped"
    source.mkdir()
    (source / "1").write_bytes(b"1")
    (source / "2").write_text('{"version": 1, "left_out": ["10_ink/a b.png"]}')
    items = [
        Item(source / "1", PurePosixPath("My Style/10_ink/a b.png")),
        Item(source / "2", PurePosixPath("My Style/.lora_studio/preparation.json")),
    ]
    kept = uploads.keep(items, tmp_path, "Harbour sketches")
    assert kept.folder.name == "Harbour sketches" and not kept.left_out
    assert names(kept.folder) == [".lora_studio/preparation.json", "10_ink/a-b.png"]
    assert preparation.read(kept.folder)[0].left_out == {"10_ink/a-b.png"}


def test_what_is_added_replaces_nothing(tmp_path):
    """A second picture of the same name takes the place of the first, or gets its caption."""
    folder = uploads.keep([made(tmp_path, "a.png", "1"), made(tmp_path, "a.txt", "first")], tmp_path, "own").folder
    table = json.dumps({"file_name": "a.png", "text": "third"})
    uploads.add([made(tmp_path, "a.png", "2"), made(tmp_path, "a.txt", "second")], folder)
    uploads.add([made(tmp_path, "a.png", "3"), made(tmp_path, "metadata.jsonl", table)], folder)
    uploads.add(
        [zipped(tmp_path / "z.zip", {"a.png": b"4", "metadata.jsonl": table.replace("third", "fourth")})], folder
    )
    found = {path.name: path.read_text() for path in folder.iterdir() if path.suffix in (".png", ".txt")}
    assert found == {
        "a.png": "1",
        "a.txt": "first",
        "a-2.png": "2",
        "a-2.txt": "second",
        "a-3.png": "3",
        "a-4.png": "4",
    }
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert lines == [{"file_name": "a-3.png", "text": "third"}, {"file_name": "a-4.png", "text": "fourth"}]
    with pytest.raises(DatasetError, match="no pictures"):
        uploads.add([made(tmp_path, "b.txt", "5")], folder)
    assert not (folder / ".adding").exists() and not (folder / "b.txt").exists()


def made(tmp_path, name, text):
    path = tmp_path / "made" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_choices_that_come_with_a_zip_are_a_step_of_their_own(tmp_path):
    """Adding a ZIP that was prepared makes it impossible to undo what was done before."""
    folder = uploads.keep([made(tmp_path, "a.png", "1"), made(tmp_path, "b.png", "2")], tmp_path, "own").folder
    bench = Workbench(folder, own=True)
    bench.leave_out(["b.png"])
    choices = json.dumps({"version": 1, "crops": {"a.png": [0, 0, 0.5, 1]}, "left_out": ["a.png"]})
    prepared = zipped(tmp_path / "z.zip", {"a.png": b"3", ".lora_studio/preparation.json": choices})
    assert not uploads.add([prepared], folder).left_out
    together = preparation.read(folder)[0]
    assert together.left_out == {"a-2.png", "b.png"} and together.crops == {"a-2.png": (0, 0, 0.5, 1)}
    assert bench.undo().names == ("a-2.png",) and preparation.read(folder)[0].left_out == {"b.png"}
    assert bench.undo().names == ("b.png",) and preparation.read(folder)[0] == Preparation()
    bench.redo()
    bench.redo()
    assert preparation.read(folder)[0] == together


def test_a_table_that_comes_with_pictures_is_a_step_of_its_own(tmp_path):
    """Adding pictures with a table makes it impossible to undo what was done to captions before, or to put the first
    ones back.
    """

    def table(**texts):
        lines = (json.dumps({"file_name": f"{name}.png", "text": text}) for name, text in texts.items())
        return made(tmp_path, "metadata.jsonl", "".join(f"{line}\n" for line in lines))

    def captions():
        return bench.captions(sorted(path.name for path in folder.glob("*.png")))

    folder = uploads.keep([made(tmp_path, "a.png", "1"), table(a="first", gone="old")], tmp_path, "own").folder
    bench = Workbench(folder, own=True)
    bench.edit_captions({"a.png": "changed"})
    new = [made(tmp_path, f"{name}.png", name) for name in ("b", "gone")]
    assert not uploads.add([*new, table(b="second", gone="new")], folder).left_out
    together = {"a.png": "changed", "b.png": "second", "gone-2.png": "new"}
    assert captions() == together, "no new picture gets the caption of one that is gone"
    bench.edit_captions({"b.png": "other"})
    bench.restore_captions(["b.png"])
    assert captions() == together
    bench.undo()
    bench.undo()
    assert bench.undo().names == ("b.png", "gone-2.png") and captions() == {**together, "b.png": "", "gone-2.png": ""}
    bench.undo()
    assert captions()["a.png"] == "first" and not bench.undoable
    bench.redo()
    bench.redo()
    assert captions() == together


def test_where_the_table_cannot_be_changed_nothing_is_added(tmp_path):
    """Pictures arrive, and their captions are lost."""
    folder = uploads.keep([made(tmp_path, "a.png", "1")], tmp_path, "own").folder
    history = folder / ".lora_studio" / "history"
    history.mkdir(parents=True)
    (history / "position.json").write_text("damaged")
    table = made(tmp_path, "metadata.jsonl", '{"file_name": "b.png", "text": "second"}')
    with pytest.raises(DatasetError, match="damaged"):
        uploads.add([made(tmp_path, "b.png", "2"), table], folder)
    assert [path.name for path in folder.iterdir() if path.name != ".lora_studio"] == ["a.png"]


def test_options_of_a_folder_that_has_its_own_are_named(tmp_path):
    """A weight that came with a ZIP is dropped without a word."""
    folder = uploads.keep([zipped(tmp_path / "own.zip", {"2_ink/a.png": b"1"})], tmp_path, "own").folder
    Workbench(folder, own=True).set_folder("2_ink", FolderOptions(weight=0.5))

    def added(weight):
        chosen = json.dumps({"version": 1, "folders": {"2_ink": {"weight": weight}}})
        entries = {"2_ink/b.png": b"2", ".lora_studio/preparation.json": chosen}
        return [one.what for one in uploads.add([zipped(tmp_path / "z.zip", entries)], folder).left_out]

    assert added(0.5) == []
    assert added(0.25) == ["The upload's options of 2_ink were not taken over: this dataset has its own."]
    assert preparation.read(folder)[0].folders == {"2_ink": FolderOptions(weight=0.5)}


def test_added_pictures_are_kept_where_their_choices_cannot_be_taken_over(tmp_path):
    folder = uploads.keep([made(tmp_path, "a.png", "1")], tmp_path, "own").folder
    (folder / ".lora_studio").mkdir(exist_ok=True)
    (folder / preparation.NAME).write_text("damaged")
    choices = '{"version": 1, "left_out": ["b.png"]}'
    (told,) = uploads.add(
        [zipped(tmp_path / "z.zip", {"b.png": b"2", ".lora_studio/preparation.json": choices})], folder
    ).left_out
    assert "were not taken over" in told.what and (folder / "b.png").exists()
    assert (folder / preparation.NAME).read_text() == "damaged"
