"""Run folders: names that every system takes, nothing overwritten, found again by name."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.errors import RunError, SettingsError

SETTINGS = Settings(data="pictures", name="ink")


@pytest.mark.fault(19, 61, 62)
@pytest.mark.parametrize(("text", "name"), [
    ("ink", "ink"),
    ("Ma Tante: été", "Ma-Tante-été"),
    ("../../etc/passwd", "passwd"),
    ("C:\\styles\\ink", "ink"),
    ("CON", "run-CON"),
    ("nul.txt", "run-nul.txt"),
    ("...", "run"),
    ("", "run"),
    ("🎨", "run"),
    (".hidden", "hidden"),
    ("a" * 100, "a" * 60),
])  # fmt: skip
def test_names_that_every_system_takes(text, name):
    assert runs.safe_name(text) == name


@pytest.mark.fault(19, 61)
@given(st.text(max_size=80))
def test_a_name_is_never_a_path_nor_hidden_nor_empty(text):
    name = runs.safe_name(text)
    assert name and name == os.path.basename(name) and not name.startswith((".", "-")) and not name.endswith((".", " "))
    assert len(name.encode()) <= 255 and not set(name) & set('<>:"/\\|?*\n\0')
    assert runs.safe_name(name) == name


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


def test_a_run_without_a_name_takes_its_folders(tmp_path):
    assert runs.create(Settings(data="/home/ana/Mes dessins"), tmp_path).name == "Mes-dessins"


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
    with pytest.raises(RunError, match="Train one first"):
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
    with pytest.raises(RunError, match="cannot be made"):
        runs.create(SETTINGS, tmp_path / "outputs")


def test_events_name_files_from_the_runs_folder_with_forward_slashes(tmp_path):
    run = runs.create(SETTINGS, tmp_path)
    assert run.relative(run.preview_file(100, 2)) == "previews/step-100-2.png"
    assert run.relative(run.preview_file(0, 2, base=True)) == "previews/base-2.png"
