"""What was moved to the trash last can be taken back, with all that belongs to it."""

from pathlib import Path

import pytest

from lora_studio import adapters, runs
from lora_studio.errors import MachineError
from lora_studio.runs import library, trash, undo
from tests.adapters.adapter_samples import small


@pytest.fixture
def gone(monkeypatch) -> list[str]:
    """The trash takes what it is given, and notes its name."""
    taken: list[str] = []

    def put(path: Path) -> None:
        if path.name == "stuck.md":
            raise MachineError("It cannot be moved to the trash.")
        taken.append(path.name)
        path.rename(path.with_name(f".gone-{path.name}"))

    monkeypatch.setattr(trash, "put", put)
    return taken


def adapter(outputs: Path, name: str) -> Path:
    """With a model card and its pictures."""
    path = adapters.write(small(), runs.library_folder(outputs) / f"{name}.safetensors")
    path.with_suffix(".md").write_text(name)
    path.with_suffix(".pictures").mkdir()
    (path.with_suffix(".pictures") / "1.webp").write_text("picture")
    return path


def test_an_adapter_goes_with_its_card_and_comes_back_with_it(tmp_path, gone):
    """The card is left behind, or undo brings back the half."""
    path = adapter(tmp_path, "ink")
    data = path.read_bytes()
    library.trash(path, tmp_path)
    assert gone == ["ink.safetensors", "ink.md", "ink.pictures"] and library.entries(tmp_path) == []
    assert sorted(undo.restore(tmp_path)) == [path.with_suffix(end) for end in (".md", ".pictures", ".safetensors")]
    assert path.read_bytes() == data and (path.with_suffix(".pictures") / "1.webp").read_text() == "picture"
    assert undo.kept(tmp_path) == [] and undo.restore(tmp_path) == []


def test_a_name_that_was_taken_meanwhile_gets_a_number(tmp_path, gone):
    library.trash(adapter(tmp_path, "ink"), tmp_path)
    (runs.library_folder(tmp_path) / "ink.md").write_text("another")
    names = sorted(path.name for path in undo.restore(tmp_path))
    assert names == ["ink-2.md", "ink-2.pictures", "ink-2.safetensors"]
    assert (runs.library_folder(tmp_path) / "ink.md").read_text() == "another"


def test_only_the_last_deletion_is_kept_aside(tmp_path, gone):
    """What was deleted takes space for ever, or comes back with what is deleted later."""
    library.trash(adapter(tmp_path, "ink"), tmp_path)
    library.trash(adapter(tmp_path, "rain"), tmp_path)
    assert {path.stem for path in undo.restore(tmp_path)} == {"rain"}
    library.trash(adapter(tmp_path, "snow"), tmp_path)
    undo.forget(tmp_path)
    assert undo.restore(tmp_path) == []


def test_what_the_trash_refuses_stays_and_what_it_took_can_be_taken_back(tmp_path, gone):
    path = adapter(tmp_path, "stuck")
    with pytest.raises(MachineError):
        library.trash(path, tmp_path)
    assert path.with_suffix(".md").exists()
    assert undo.restore(tmp_path) == [path]
