"""A comparison has a place in the queue, like other jobs, and can be stopped."""

import os

import pytest

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.events import State
from lora_studio.jobs import comparing, job
from lora_studio.jobs.comparing import ComparingJob
from lora_studio.jobs.judging import JudgingJob
from lora_studio.locks import Lock


@pytest.fixture
def judging(tmp_path):
    """A job that is at work."""
    found = JudgingJob(runs.create(Settings(data="x", name="ink"), tmp_path).judging)
    found.folder.mkdir(parents=True)
    found.register(os.getpid())
    return found


def test_it_waits_for_its_turn_is_seen_by_others_and_leaves_nothing(judging, tmp_path):
    """It took the device between two runs that waited, and nobody knew for what the next run waited."""
    said = []

    def tell(sentence):
        said.append(sentence)
        judging.worker_file.unlink()

    with comparing.turn(["ana", "ben", "cleo"], tmp_path, tell) as stopping:
        assert said == ["Waiting for the judging of ink to end…"]
        (noted,) = job.at_work(tmp_path)
        assert noted.title == "the comparison of ana, ben and cleo" and noted.noun == "comparison"
        assert ComparingJob(noted.folder, ("ana", "ben")).view().state is State.RUNNING
        assert not Lock(runs.device_lock(tmp_path)).acquire() and not stopping()
        noted.cancel()
        assert stopping()
    assert job.at_work(tmp_path) == [] and not list(runs.comparing_folder(tmp_path).iterdir())


def test_it_can_be_stopped_while_it_waits(judging, tmp_path):
    def stopped(_):
        (mine,) = [one for one in job.at_work(tmp_path) if one.noun == "comparison"]
        mine.cancel()

    with pytest.raises(comparing.Stopped), comparing.turn(["ana", "ben"], tmp_path, stopped):
        pytest.fail("its turn has not come")
    assert [one.noun for one in job.at_work(tmp_path)] == ["judging"]


def test_what_a_killed_comparison_left_is_removed(tmp_path):
    dead = runs.comparing_folder(tmp_path) / "4194305"
    dead.mkdir(parents=True)
    (dead / "worker.json").write_text('{"pid": 4194305, "started": 0}')
    with comparing.turn(["ana", "ben"], tmp_path, lambda _: pytest.fail("nothing is at work")):
        assert not dead.exists()
