"""Renaming a run: everything that is called after it follows."""

import json
import os

import pytest

from lora_studio import files, runs
from lora_studio.config.settings import Settings
from lora_studio.errors import RunError, SettingsError
from lora_studio.runs import renaming


def made(outputs, name, *names):
    run = runs.create(Settings(data="pictures", name=name), outputs)
    for one in names:
        (run.folder / one).write_text(one)
    return run


def test_folder_settings_and_adapters_take_the_name(tmp_path):
    """The adapter of the renamed run is not found, or a file of another name is touched."""
    run = made(tmp_path, "ink", "ink.safetensors", "ink-step-20.safetensors", "inkwell.safetensors")
    os.utime(run.settings_file, (1000, 1000))
    new = renaming.rename(run, " Ma Tante: été ")
    assert new.name == "Ma-Tante-été" and [one.name for one in runs.existing(tmp_path)] == ["Ma-Tante-été"]
    assert new.settings().run.name == "Ma-Tante-été" and new.modified == 1000, "it is no younger than before"
    assert sorted(path.name for path in new.folder.glob("*.safetensors")) == [
        "Ma-Tante-été-step-20.safetensors",
        "Ma-Tante-été.safetensors",
        "inkwell.safetensors",
    ]
    assert new.adapter_file.read_text() == "ink.safetensors"
    assert new.kept_file(20).read_text() == "ink-step-20.safetensors"


def test_model_cards_go_with_their_adapters(tmp_path):
    """The card of a renamed adapter is lost to it, or shows no pictures."""
    run = made(tmp_path, "ink pot", "ink-pot.safetensors", "ink-pot.md", "ink-pot-2.safetensors", "notes.md")
    card, pictures = run.folder / "ink-pot.md", run.folder / "ink-pot.pictures"
    card.write_text("# Ink\n\n![a](ink-pot.pictures/1.webp)\n- File: `ink-pot.safetensors`\nink-pot is mine")
    pictures.mkdir()
    (pictures / "1.webp").write_text("drawn")
    new = renaming.rename(run, "wash").folder
    told = "# Ink\n\n![a](wash.pictures/1.webp)\n- File: `wash.safetensors`\nink-pot is mine"
    assert (new / "wash.md").read_text() == told and (new / "wash.pictures" / "1.webp").read_text() == "drawn"
    assert sorted(one.name for one in new.glob("*.md")) == ["notes.md", "wash.md"]


def test_an_event_finds_a_file_by_its_former_name(tmp_path):
    """What an event names is lost with the run's name; or another file is taken for it."""
    run = made(tmp_path, "ink", "ink.safetensors", "other.safetensors")
    new = renaming.rename(renaming.rename(run, "wash"), "oil")
    assert renaming.recorded(new, "ink.safetensors") == renaming.recorded(new, "oil.safetensors") == new.adapter_file
    assert renaming.recorded(new, "other.safetensors") == new.folder / "other.safetensors"
    assert renaming.recorded(new, "inkwell.safetensors") == new.folder / "inkwell.safetensors"


def test_earlier_names_lead_to_it(tmp_path):
    """A link, a recipe in the browser or a command that says the earlier name finds nothing."""
    run = made(tmp_path, "ink", "ink.safetensors")
    new = renaming.rename(renaming.rename(run, "wash"), "gouache")
    assert new.former() == ["wash", "ink"]
    assert [renaming.follow(one, tmp_path) for one in ("ink", "wash", "gouache", "oil")] == ["gouache"] * 3 + ["oil"]
    assert runs.find("ink", tmp_path) == runs.Run(new.folder)
    assert renaming.follow_path(tmp_path / "ink" / "ink.safetensors", tmp_path) == new.adapter_file
    inner = renaming.follow_path(tmp_path / "wash" / "checkpoints" / "step-5" / "adapter.safetensors", tmp_path)
    assert inner == new.checkpoint(5) / "adapter.safetensors"
    again = made(tmp_path, "ink")
    assert renaming.follow("ink", tmp_path) == "ink", "a new run of that name has it"
    assert renaming.rename(new, "wash").former() == ["gouache", "ink"] and again.former() == []


def test_branches_say_the_new_name(tmp_path):
    """A branch names a parent that no longer exists."""
    parent, child, other = made(tmp_path, "ink"), made(tmp_path, "child"), made(tmp_path, "other")
    for run, name in ((child, "ink"), (other, "oil")):
        files.write(run.parent_file, json.dumps({"run": name, "step": 5, "goes_on": True}))
    renaming.rename(parent, "wash")
    assert child.parent() == {"run": "wash", "step": 5, "goes_on": True} and other.parent()["run"] == "oil"


@pytest.mark.parametrize(("name", "error", "what"), [
    ("  ", SettingsError, "The new name is empty."),
    ("a/b:c", SettingsError, "A name must not contain / or \\."),
    ("a\\b", SettingsError, "A name must not contain / or \\."),
    ("oil", RunError, "The name oil is taken."),
    ("library", RunError, "The name library is taken."),
])  # fmt: skip
def test_a_name_that_cannot_be_is_refused(tmp_path, name, error, what):
    """The run lands in another one's folder, or among the library's adapters."""
    run, _ = made(tmp_path, "ink"), made(tmp_path, "oil")
    with pytest.raises(error) as caught:
        renaming.rename(run, name)
    assert caught.value.what == what and sorted(one.name for one in runs.existing(tmp_path)) == ["ink", "oil"]


def test_a_refused_rename_leaves_the_run_as_it_was(tmp_path, monkeypatch):
    """Half of the run has the new name."""
    run = made(tmp_path, "ink", "ink.safetensors")
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(Exception, match="ink cannot be renamed"):
        renaming.rename(run, "wash")
    assert run.adapter_file.is_file() and run.settings().run.name == "ink"
