"""Run folders: names that every system takes, nothing overwritten, found again by name."""

import errno
import os
import time

import pytest

from lora_studio import files, runs
from lora_studio.config.settings import Settings
from lora_studio.errors import MachineError, RunError, SettingsError

SETTINGS = Settings(data="pictures", name="ink")


def test_a_new_run_holds_its_settings_and_folders(tmp_path):
    run = runs.create(SETTINGS, tmp_path)
    assert run.name == "ink" and run.settings() == SETTINGS
    assert run.control.is_dir() and run.previews.is_dir() and run.checkpoints.is_dir()
    assert run.adapter_file == tmp_path / "ink" / "ink.safetensors"


@pytest.mark.fault(62)
def test_an_existing_run_is_never_touched(tmp_path):
    first = runs.create(SETTINGS, tmp_path)
    first.adapter_file.write_text("precious")
    second = runs.create(SETTINGS, tmp_path)
    assert (second.name, second.settings().run.name, second.adapter_file.name) == (
        "ink-2",
        "ink-2",
        "ink-2.safetensors",
    )
    assert first.adapter_file.read_text() == "precious"


def test_of_many_runs_a_few_are_named(tmp_path):
    for number in range(7):
        runs.create(Settings(data="pictures", name=f"style-{number}"), tmp_path)
    with pytest.raises(RunError) as raised:
        runs.find("watercolour", tmp_path)
    assert raised.value.do.startswith("There are 7, among them: style-") and raised.value.do.count("style-") == 5
    with pytest.raises(RunError, match=r"Did you mean style-3\?"):
        runs.find("styl-3", tmp_path)


def test_a_run_without_a_name_takes_its_folders(tmp_path):
    assert runs.create(Settings(data="/home/ana/Mes dessins"), tmp_path).name == "Mes-dessins"


@pytest.mark.parametrize("name", ["library", "pictures", "Pictures"])
def test_no_run_takes_a_folder_of_the_layout(tmp_path, name):
    """Pictures in a folder "pictures" gave a run of that name, into whose folder uploads went."""
    run = runs.create(Settings(data=f"/home/ana/{name}"), tmp_path)
    assert run.name == f"run-{name}" and run.folder not in (
        runs.library_folder(tmp_path),
        runs.pictures_folder(tmp_path),
    )


def test_a_new_folder_for_pictures_is_never_an_old_one(tmp_path):
    made = [runs.new_pictures(name, tmp_path).name for name in ("ink", "ink", "../ink", "CON")]
    assert made == ["ink", "ink-2", "ink-3", "run-CON"]
    assert runs.existing(tmp_path) == []


def test_the_latest_run_comes_first_and_strangers_folders_are_no_runs(tmp_path):
    for name in ("old", "new"):
        run = runs.create(SETTINGS.changed(name=name), tmp_path)
        stamp = time.time() + (100 if name == "new" else 0)
        os.utime(run.settings_file, (stamp, stamp))
    (tmp_path / "holiday").mkdir()
    runs.cache_folder(tmp_path).mkdir()
    assert [run.name for run in runs.existing(tmp_path)] == ["new", "old"]
    assert runs.existing(tmp_path / "none") == []


def test_found_by_name_or_path_else_the_nearest_is_offered(tmp_path):
    run = runs.create(SETTINGS, tmp_path)
    assert runs.find("ink", tmp_path) == runs.find(str(run.folder), tmp_path / "elsewhere") == run
    with pytest.raises(RunError, match="Did you mean ink"):
        runs.find("imk", tmp_path)
    with pytest.raises(RunError, match="Train a style first"):
        runs.find("ink", tmp_path / "none")


@pytest.mark.parametrize("content", ["rank = ", "rank = 'many'", "brush = 3", "\x00"])
def test_damaged_settings_are_named(tmp_path, content):
    run = runs.create(SETTINGS, tmp_path)
    run.settings_file.write_text(content)
    with pytest.raises(SettingsError):
        run.settings()


def test_an_outputs_folder_that_cannot_be_written_is_named(tmp_path):
    """Fault 56."""
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(MachineError, match="cannot be created: File exists"):
        runs.create(SETTINGS, tmp_path / "outputs")


def test_a_run_whose_settings_cannot_be_written_leaves_no_folder(tmp_path, monkeypatch):
    """On a full disk each attempt leaves another damaged run."""

    def write(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write", write)
    with pytest.raises(MachineError, match="cannot be created"):
        runs.create(SETTINGS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_events_name_files_from_the_runs_folder_with_forward_slashes(tmp_path):
    run = runs.create(SETTINGS, tmp_path)
    assert run.relative(run.preview_file(100, 2)) == "previews/step-100-2.png"
    assert run.relative(run.preview_file(0, 2, base=True)) == "previews/base-2.png"
