"""Renaming and deleting runs: refused while something is at work in them."""

import os

import pytest

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.errors import RunError
from lora_studio.jobs import housekeeping
from lora_studio.jobs.judging import JudgingJob
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


def test_at_rest_it_goes(played, monkeypatch, tmp_path):
    """Only what the trash took is gone."""
    monkeypatch.setattr(housekeeping.trash, "put", lambda path: path.rename(tmp_path / ".gone"))
    housekeeping.delete(housekeeping.rename(played.run, "wash"))
    assert runs.existing(tmp_path) == [] and (tmp_path / ".gone" / "settings.toml").is_file()
