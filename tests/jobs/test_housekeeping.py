"""Renaming and deleting runs: refused while something is at work in them."""

import errno
import os

import pytest

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.errors import MachineError, RunError
from lora_studio.jobs import housekeeping
from lora_studio.jobs.judging import JudgingJob
from lora_studio.runs import trash
from lora_studio.ui.pages.runs import panel_view
from tests.ui.played import Part


@pytest.fixture
def played(tmp_path):
    made = Part(runs.create(Settings(data="pictures", name="ink"), tmp_path))
    yield made
    for file in (made.run.worker_file, JudgingJob(made.run.judging).worker_file):
        file.unlink(missing_ok=True)


@pytest.mark.parametrize("act", [housekeeping.delete, lambda run: housekeeping.rename(run, "wash")])
def test_not_while_it_trains_or_is_judged(played, act):
    """The folder of a worker moves away under it."""
    played.lives()
    with pytest.raises(RunError, match="ink is at work or waits in the queue"):
        act(played.run)
    played.dies()
    job = JudgingJob(played.run.judging)
    job.folder.mkdir(parents=True)
    job.register(os.getpid())
    with pytest.raises(RunError, match="the judging of ink is at work or waits"):
        act(played.run)
    assert played.run.settings_file.is_file()


@pytest.fixture
def gone(monkeypatch, tmp_path):
    """Where the trash keeps what it took, which the system does not tell."""
    monkeypatch.setattr(trash, "put", lambda path: path.rename(tmp_path / ".gone" / path.name))
    monkeypatch.setattr(trash, "place", lambda path: None)
    (tmp_path / ".gone").mkdir()
    return tmp_path / ".gone"


def test_at_rest_it_goes_and_comes_back(played, gone, tmp_path):
    """Only what the trash took is gone; and it comes back on systems that do not tell where that is."""
    run = housekeeping.rename(played.run, "wash")
    run.checkpoint(5).mkdir(parents=True)
    housekeeping.delete(run)
    assert runs.existing(tmp_path) == [] and (gone / "wash" / "settings.toml").is_file()
    assert "Undo" in panel_view.deleted(run)
    housekeeping.restore("wash", tmp_path)
    assert runs.existing(tmp_path) == [run] and run.checkpoint(5).is_dir() and run.settings().run.name == "wash"
    with pytest.raises(MachineError, match="wash is not kept for undo any more"):
        housekeeping.restore("wash", tmp_path)


def test_a_new_run_of_its_name_is_not_mixed_with_it(played, gone, tmp_path):
    """Two runs share a folder, or a run comes back under a name that its adapter does not have."""
    housekeeping.delete(played.run)
    runs.create(Settings(data="pictures", name="ink"), tmp_path)
    with pytest.raises(MachineError, match="something of that name is there now"):
        housekeeping.restore("ink", tmp_path)
    assert housekeeping.restorable("ink", tmp_path) and not housekeeping.restorable("oil", tmp_path)


def test_a_run_is_not_copied_to_delete_it(played, gone, tmp_path, monkeypatch):
    """Where the disk has no hard links, gigabytes are copied to make room."""
    monkeypatch.setattr(os, "link", refused)
    housekeeping.delete(played.run)
    assert runs.existing(tmp_path) == [] and not housekeeping.restorable("ink", tmp_path)
    assert "Undo" not in panel_view.deleted(played.run)


def refused(source, target):
    raise OSError(errno.EPERM, "Operation not permitted")
