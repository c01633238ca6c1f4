"""The pictures that were drawn: kept, starred, deleted and taken back, however many there are."""

import os
import time

import pytest

from lora_studio import runs
from lora_studio.errors import MachineError, SettingsError
from lora_studio.runs import gallery, trash


@pytest.fixture(autouse=True)
def own_trash(monkeypatch):
    """Nothing of a test lands in the user's trash."""
    gone = []
    monkeypatch.setattr(trash, "put", lambda path: (gone.append(path.name), path.unlink()))
    return gone


def names(outputs) -> list[str]:
    return [one.name for one in gallery.listed(outputs)]


def test_the_latest_picture_comes_first_and_no_name_is_taken_twice(tmp_path):
    for number, content in enumerate((b"one", b"two")):
        path = gallery.keep(content, "a-cat-7.png", tmp_path)
        os.utime(path, ns=(number, number))
    assert names(tmp_path) == ["a-cat-7-2.png", "a-cat-7.png"]
    assert gallery.found("a-cat-7.png", tmp_path).read_bytes() == b"one"


def test_datasets_and_hidden_files_are_no_pictures(tmp_path):
    """The gallery serves what it lists: a dataset's pictures must not be among it."""
    folder = runs.pictures_folder(tmp_path)
    (folder / "harbour").mkdir(parents=True)
    for name in ("harbour/a.png", ".hidden.png", "notes.html", "b.PNG"):
        (folder / name).write_bytes(b"x")
    assert names(tmp_path) == ["b.PNG"]
    for name in ("harbour/a.png", ".hidden.png", "notes.html", "../b.PNG", "..", ""):
        assert gallery.find(name, tmp_path) is None


def test_a_star_stays_with_its_picture(tmp_path):
    gallery.keep(b"x", "a.png", tmp_path)
    gallery.star("a.png", True, tmp_path)
    assert gallery.listed(tmp_path)[0].starred
    gallery.star("a.png", False, tmp_path)
    assert not gallery.listed(tmp_path)[0].starred
    (runs.pictures_folder(tmp_path) / ".starred.json").write_text('{"damaged": ')
    assert not gallery.listed(tmp_path)[0].starred


def test_what_was_deleted_last_can_be_taken_back(tmp_path, own_trash):
    for name in ("a.png", "b.png", "c.png"):
        gallery.keep(name.encode(), name, tmp_path)
    gallery.star("b.png", True, tmp_path)
    gallery.delete(["a.png"], tmp_path)
    gallery.delete(["b.png", "c.png", "b.png"], tmp_path)
    assert names(tmp_path) == [] and own_trash == ["a.png", "b.png", "c.png"] and gallery.can_restore(tmp_path) == 2
    gallery.keep(b"new", "c.png", tmp_path)
    assert gallery.restore(tmp_path) == ["b.png", "c-2.png"] and gallery.can_restore(tmp_path) == 0
    assert gallery.found("c-2.png", tmp_path).read_bytes() == b"c.png"
    assert {one.name for one in gallery.listed(tmp_path) if one.starred} == {"b.png"}
    with pytest.raises(SettingsError, match="gone"):
        gallery.delete(["a.png"], tmp_path)


def test_a_disk_without_a_trash_keeps_the_picture(tmp_path, monkeypatch):
    def refuse(path):
        raise MachineError("no trash")

    monkeypatch.setattr(trash, "put", refuse)
    gallery.keep(b"x", "a.png", tmp_path)
    with pytest.raises(MachineError):
        gallery.delete(["a.png"], tmp_path)
    assert names(tmp_path) == ["a.png"] and gallery.can_restore(tmp_path) == 0


def test_two_thousand_pictures_are_listed_at_once(tmp_path):
    folder = runs.pictures_folder(tmp_path)
    folder.mkdir()
    for number in range(2000):
        (folder / f"{number}.png").write_bytes(b"x")
    began = time.process_time()
    assert len(gallery.listed(tmp_path)) == 2000 and time.process_time() - began < 0.5
