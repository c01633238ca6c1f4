"""The system's trash: what is deleted can come back."""

import sys

import pytest

from lora_studio.errors import MachineError
from lora_studio.runs import trash

pytestmark = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="there the system alone restores")


@pytest.fixture
def can(tmp_path, monkeypatch):
    """A trash of its own, as the specification of freedesktop.org lays it out."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "data" / "Trash" / "files").mkdir(parents=True)
    (tmp_path / "data" / "Trash" / "info").mkdir()
    return tmp_path / "data" / "Trash"


def deleted(can, name, path, number=0):
    (can / "files" / name).mkdir()
    (can / "files" / name / "number").write_text(str(number))
    told = str(path).replace(" ", "%20").replace("é", "%C3%A9")
    (can / "info" / f"{name}.trashinfo").write_text(f"[Trash Info]\nPath={told}\nDeletionDate=2026-01-01T00:00:00\n")


def test_the_latest_of_a_path_comes_back(can, tmp_path):
    """Another folder of that name comes back, or the trash still lists it."""
    place, elsewhere = tmp_path / "outputs" / "ma été", tmp_path / "elsewhere" / "ma été"
    place.parent.mkdir()
    deleted(can, "ma été", elsewhere)
    deleted(can, "ma été 1", place, 1)
    deleted(can, "ma été 2", place, 2)
    assert trash.place(place) == can / "files" / "ma été 2"
    trash.restore(place)
    assert (place / "number").read_text() == "2"
    assert sorted(one.name for one in (can / "info").iterdir()) == ["ma été 1.trashinfo", "ma été.trashinfo"]


def test_nothing_is_overwritten_and_what_is_gone_is_said(can, tmp_path):
    """A new run is replaced by the deleted one; or the page breaks where the trash was emptied."""
    place = tmp_path / "ink"
    deleted(can, "ink", place)
    place.mkdir()
    with pytest.raises(MachineError, match="something of that name is there now"):
        trash.restore(place)
    place.rmdir()
    trash.restore(place)
    with pytest.raises(MachineError, match="ink cannot be restored: something"):
        trash.restore(place)
    with pytest.raises(MachineError, match="no longer in the trash"):
        trash.restore(tmp_path / "oil")
