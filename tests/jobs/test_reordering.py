"""The order of the queue: what waits is moved, what works is not."""

import json

import pytest

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.errors import RunError
from lora_studio.events import State, StateChanged
from lora_studio.jobs import keeper, queue, reordering, runner, stopping
from lora_studio.jobs.view import fold
from tests.ui.played import Part


@pytest.fixture
def line(tmp_path):
    """``works`` is at work; ``a``, ``b`` and ``c`` wait in tickets."""
    made = {name: Part(runs.create(Settings(data="x", name=name), tmp_path)) for name in ("works", "a", "b", "c")}
    made["works"].begins()
    noted = json.loads(made["works"].run.worker_file.read_text())
    made["works"].run.worker_file.write_text(json.dumps({**noted, "queued": 1}))
    for place, name in enumerate("abc", 2):
        made[name].says(StateChanged(state=State.QUEUED))
        made[name].run.ticket_file.write_text(json.dumps({"queued": place, "variables": {"A": name}}))
    yield made
    made["works"].run.worker_file.unlink(missing_ok=True)


def order(outputs):
    return [entry.title for entry in queue.line(outputs)]


def test_what_waits_moves_by_one(line, tmp_path):
    """The wrong one moves, or a run is lost from the queue with the variables it was started with."""
    keys = {entry.title: entry.key for entry in queue.line(tmp_path)}
    assert [entry.title for entry in queue.line(tmp_path) if reordering.waits(entry)] == ["a", "b", "c"]
    reordering.move(tmp_path, keys["c"], up=True)
    assert order(tmp_path) == ["works", "a", "c", "b"]
    reordering.move(tmp_path, keys["a"], up=False)
    assert order(tmp_path) == ["works", "c", "a", "b"]
    reordering.move(tmp_path, keys["c"], up=True)
    assert order(tmp_path) == ["works", "c", "a", "b"], "it does not pass what is at work"
    assert json.loads(line["c"].run.ticket_file.read_text()) == {"queued": 2, "variables": {"A": "c"}}
    with pytest.raises(RunError, match="no longer waits"):
        reordering.move(tmp_path, keys["works"], up=False)
    assert queue.waits_for(line["a"].run) == "works to end, and 1 more run before it"


def test_one_that_waits_in_a_process_of_its_own_moves_too(line, tmp_path):
    """A run that was started behind a job waits in its worker, and could not be moved."""
    runner.register_worker(line["b"].run, json.loads(line["works"].run.worker_file.read_text())["pid"], 3)
    reordering.move(tmp_path, line["b"].run.folder.as_posix(), up=True)
    assert order(tmp_path) == ["works", "b", "a", "c"] and not runner.waits(line["b"].run)
    line["b"].run.worker_file.unlink()


def test_one_that_is_taken_out_is_gone(line, tmp_path, monkeypatch):
    """It trains although it was taken out, or counts as interrupted."""
    monkeypatch.setattr(keeper, "_start", lambda run: pytest.fail("it was started"))
    b = next(entry for entry in queue.line(tmp_path) if entry.title == "b")
    assert stopping.stop(b.run) is True and order(tmp_path) == ["works", "a", "c"]
    assert fold(line["b"].run).left_queue
    assert stopping.stop(queue.line(tmp_path)[0].one) is False
