"""Saved states: which there are, which is the latest, which may go."""

import json

import pytest

from lora_studio import files
from lora_studio.errors import RunError
from lora_studio.runs import Run, checkpoints


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "ink")


def saved(run, *steps, content=b"state"):
    for step in steps:
        folder = run.checkpoint(step)
        files.write(folder / "state", content)
        files.write(folder / checkpoints.MANIFEST, json.dumps({"state": files.sha256(folder / "state")}))


def steps(run):
    return [one.step for one in checkpoints.listed(run)]


def test_states_are_listed_by_step_and_unfinished_ones_are_none(run):
    """Sorted as words, step 1000 comes before step 200."""
    saved(run, 1000, 200)
    files.write(run.checkpoint(300) / "state", b"no manifest yet")
    files.partial(run.checkpoint(400)).mkdir()
    (run.checkpoints / "step-5 (copy)").mkdir()
    assert steps(run) == [200, 1000] and checkpoints.listed(run)[0].size > 5
    assert checkpoints.latest(run) == run.checkpoint(1000)
    assert checkpoints.latest(Run(run.folder / "none")) is None


@pytest.mark.parametrize(("last", "every", "starred", "left"), [
    (1, 0, [], [600]),
    (3, 0, [], [400, 500, 600]),
    (9, 0, [], [100, 200, 300, 400, 500, 600]),
    (1, 300, [], [300, 600]),
    (2, 0, [100], [100, 500, 600]),
    (1, 200, [100], [100, 200, 400, 600]),
])  # fmt: skip
def test_the_last_every_nth_and_the_starred_are_kept(run, last, every, starred, left):
    saved(run, *range(100, 700, 100))
    for step in starred:
        checkpoints.star(run, step)
    removed = checkpoints.prune(run, last, every)
    assert steps(run) == left and sorted(removed + left) == [100, 200, 300, 400, 500, 600]
    assert not [*run.checkpoints.glob("*" + files.PARTIAL)]


def test_a_star_is_put_on_twice_and_taken_off_twice(run):
    saved(run, 100)
    for on in (True, True, False, False):
        checkpoints.star(run, 100, on)
        assert checkpoints.find(run, 100).starred is on
    assert checkpoints.complete(run.checkpoint(100)), "a star must not make the state look damaged"


def test_a_state_that_is_not_there_is_refused_with_those_that_are(run):
    with pytest.raises(RunError, match="has no saved states yet"):
        checkpoints.find(run, 100)
    saved(run, 100, 200)
    with pytest.raises(RunError, match="Its saved states: 100, 200"):
        checkpoints.star(run, 150)
    (run.checkpoint(200) / "state").write_bytes(b"x")
    with pytest.raises(RunError, match="damaged"):
        checkpoints.find(run, 200)
    assert checkpoints.latest(run) == run.checkpoint(100)
