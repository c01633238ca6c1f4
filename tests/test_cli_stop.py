"""``stop``: what waits leaves the queue, what works is asked to stop, and nothing else is touched."""

import json
import os

import pytest

from lora_studio import cli, runs
from lora_studio.config.settings import Settings
from lora_studio.events import CaptioningStarted, State, StateChanged
from lora_studio.jobs import captioning, control, identity, runner, view
from lora_studio.jobs.captioning import CaptioningJob, CaptioningOrder
from lora_studio.jobs.control import Request
from lora_studio.jobs.eventlog import EventLog
from tests.jobs.conftest import no_worker_outlives_its_test, run, wait_until, worker  # noqa: F401

WORK = "log.append(StateChanged(state=State.RUNNING)); time.sleep(300)"


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "outputs"


@pytest.fixture
def captions(outputs):
    """A captioning job called ink, whose worker is this process."""
    job = CaptioningJob(runs.new_captioning("ink", outputs))
    job.order_file.write_text(CaptioningOrder(data="pictures", model="wd14").model_dump_json())
    job.worker_file.write_text(json.dumps({**identity.note(os.getpid()), "queued": 1}))
    EventLog(job.events_file).append(StateChanged(state=State.QUEUED))
    return job


def stopped(name, outputs, capfd):
    """The result of ``stop``."""
    assert cli.main(["stop", str(name), "--outputs", str(outputs), "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def refused(name, outputs, capfd):
    assert cli.main(["stop", str(name), "--outputs", str(outputs)]) == 2
    return capfd.readouterr().err


def test_a_run_leaves_the_queue_and_the_one_at_work_is_asked_to_stop(run, outputs, worker, capfd):  # noqa: F811
    worker(WORK)
    waiting = runs.create(Settings(data="pictures", name="apple"), outputs)
    for one in (run, waiting):
        runner.start(one)
    wait_until(lambda: view.fold(run).state is State.RUNNING)
    assert stopped("apple", outputs, capfd) == {"folder": str(waiting.folder), "left_queue": True}
    assert not runner.alive(waiting) and view.fold(waiting).left_queue and not control.asked(run, Request.STOP)
    assert "neither at work nor waiting" in refused("apple", outputs, capfd)
    assert stopped("ink", outputs, capfd) == {"folder": str(run.folder), "left_queue": False}
    assert control.asked(run, Request.STOP) and runner.alive(run)


@pytest.mark.parametrize("works", [False, True])
def test_a_captioning_job_is_asked_to_stop(works, captions, outputs, capfd):
    if works:
        EventLog(captions.events_file).append(CaptioningStarted(done=0, total=9, model="wd14", device="CPU"))
    assert stopped("ink", outputs, capfd) == {"folder": str(captions.folder), "left_queue": not works}
    assert captions.stop_file.exists()


def test_a_run_and_a_job_of_one_name_are_told_apart_by_their_folders(run, captions, outputs, worker, capfd):  # noqa: F811
    worker(WORK)
    runner.start(run)
    assert "A run and a captioning job are called ink" in refused("ink", outputs, capfd)
    assert not captions.stop_file.exists() and not control.asked(run, Request.STOP)
    assert stopped(captions.folder, outputs, capfd)["folder"] == str(captions.folder)
    assert captions.stop_file.exists() and not control.asked(run, Request.STOP)
    assert stopped(run.folder, outputs, capfd)["folder"] == str(run.folder)


def test_an_unknown_name_is_refused(captions, outputs, capfd):
    assert "no run named 'inc'" in refused("inc", outputs, capfd)
    assert captioning.at_work(outputs) == [captions]
