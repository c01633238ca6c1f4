"""The system's trash: where what was deleted is."""

import sys

import pytest

from lora_studio.runs import trash

pytestmark = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="there the system alone knows")


@pytest.fixture
def can(tmp_path, monkeypatch):
    """A trash of its own, as the specification of freedesktop.org lays it out."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "data" / "Trash" / "files").mkdir(parents=True)
    (tmp_path / "data" / "Trash" / "info").mkdir()
    return tmp_path / "data" / "Trash"


def deleted(can, name, path):
    (can / "files" / name).mkdir()
    told = str(path).replace(" ", "%20").replace("é", "%C3%A9")
    (can / "info" / f"{name}.trashinfo").write_text(f"[Trash Info]\nPath={told}\nDeletionDate=2026-01-01T00:00:00\n")


def test_the_latest_of_a_path_is_found(can, tmp_path):
    """She is sent to another folder of that name."""
    place, elsewhere = tmp_path / "outputs" / "ma été", tmp_path / "elsewhere" / "ma été"
    place.parent.mkdir()
    deleted(can, "ma été", elsewhere)
    deleted(can, "ma été 1", place)
    deleted(can, "ma été 2", place)
    assert trash.place(place) == can / "files" / "ma été 2"
    assert trash.place(tmp_path / "oil") is None
