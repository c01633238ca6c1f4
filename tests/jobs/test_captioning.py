"""Captioning jobs with a real process and a tiny tagger: what is written where, what is kept, whose turn it is."""

import json
import os
import signal

import pytest
from PIL import Image

from lora_studio import runs
from lora_studio.curation.workbench import Workbench
from lora_studio.errors import DatasetError, ModelError
from lora_studio.events import Captioned, Captioning, Failed, State, StateChanged
from lora_studio.jobs import caption_writing, captioning, identity, runner
from lora_studio.jobs.captioning import CaptioningJob, CaptioningOrder, Mode, fold, merged
from lora_studio.jobs.eventlog import EventLog
from lora_studio.locks import Lock
from lora_studio.vision.options import TagOptions
from tests.jobs.conftest import wait_until
from tests.vision import tiny

WHITE = "rose (flower), hatsune miku, watercolor (medium), >_<"
"""What the tiny tagger says of a white picture above a score of 0.5."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny.wd14(tmp_path_factory.mktemp("tagger") / "wd").parent)


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "outputs"


@pytest.fixture
def data(tmp_path):
    """Four pictures: two without a caption, one with one, one that has its folder's name as caption."""
    folder = tmp_path / "ink"
    (folder / "3_boat").mkdir(parents=True)
    for number, name in enumerate(("a", "b", "c", "3_boat/d")):
        Image.new("RGB", (80, 80 + number), "white").save(folder / f"{name}.png")
    (folder / "b.txt").write_text("a boat by hand")
    Workbench(folder).allow()
    return folder


@pytest.fixture
def order(data, model):
    def make(mode=Mode.FILL, **more):
        return CaptioningOrder(data=str(data), model=model, mode=mode, tags=TagOptions(general=0.5), **more)

    return make


@pytest.fixture(autouse=True)
def no_worker_outlives_its_test(outputs):
    yield
    for job in captioning.jobs(outputs):
        if (worker := identity.read(job.worker_file)) and worker["pid"] != os.getpid():
            os.kill(worker["pid"], signal.SIGKILL if os.name != "nt" else signal.SIGTERM)


def ended(job):
    wait_until(lambda: job.view().state.ended)
    return job.view()


def texts(data):
    found = [*data.glob("*.txt"), *data.glob("3_boat/*.txt")]
    return {path.relative_to(data).as_posix(): path.read_text().rstrip("\n") for path in found}


def test_empty_captions_are_filled_and_hand_written_ones_stay(order, data, outputs):
    """A picture that is called like its folder has no caption of its own. One undo takes all of them back."""
    job = captioning.start(order(), outputs)
    seen = ended(job)
    assert (seen.state, seen.error, seen.done, seen.total) == (State.FINISHED, None, 3, 3)
    assert texts(data) == {"3_boat/d.txt": WHITE, "a.txt": WHITE, "b.txt": "a boat by hand", "c.txt": WHITE}
    assert seen.written == {"a.png", "c.png", "3_boat/d.png"} and not seen.can_resume
    assert [one.name for one in captioning.jobs(outputs, data)] == [job.name]
    Workbench(data).undo()
    assert texts(data) == {"b.txt": "a boat by hand"}


def test_tags_are_appended_behind_what_is_there(order, data, outputs):
    (data / "b.txt").write_text("a boat\nHatsune Miku, a ship\n")
    job = captioning.start(order(Mode.APPEND, names=("b.png",)), outputs)
    assert ended(job).written == {"b.png"}
    assert texts(data)["b.txt"].splitlines() == [
        f"a boat, {WHITE}",
        "Hatsune Miku, a ship, rose (flower), watercolor (medium), >_<",
    ]


def test_proposals_write_nothing_until_they_are_accepted(order, data, outputs):
    job = captioning.start(order(Mode.PROPOSE), outputs)
    assert not ended(job).written and texts(data) == {"b.txt": "a boat by hand"}
    assert job.proposals() == dict.fromkeys(["a.png", "b.png", "c.png", "3_boat/d.png"], WHITE)
    job.dismiss(["a.png"])
    assert job.accept(["b.png", "gone.png"]) == ["b.png"]
    assert texts(data) == {"b.txt": WHITE} and set(job.proposals()) == {"c.png", "3_boat/d.png"}
    assert sorted(job.accept()) == ["3_boat/d.png", "c.png"] and job.proposals() == {}


def test_proposals_need_no_consent_but_writing_them_does(order, data, outputs):
    (data / ".lora_studio").rmdir()
    job = captioning.start(order(Mode.PROPOSE), outputs)
    assert ended(job).state is State.FINISHED and not (data / ".lora_studio").exists()
    with pytest.raises(DatasetError, match="not been allowed to write"):
        job.accept()
    assert len(job.proposals()) == 4
    with pytest.raises(DatasetError, match="not been allowed to write"):
        captioning.start(order(Mode.FILL), outputs)


def test_a_dataset_that_the_studio_made_needs_none(order, outputs, model):
    made = runs.new_pictures("ink", outputs)
    Image.new("RGB", (80, 80), "white").save(made / "a.png")
    job = captioning.start(CaptioningOrder(data=str(made), model=model), outputs)
    assert ended(job).written == {"a.png"}


def test_a_killed_job_resumes_without_looking_twice(order, data, outputs):
    """What it had captioned before is in its log; the rest is captioned, and all of it is written."""
    job = CaptioningJob(runs.new_captioning("ink", outputs))
    job.order_file.write_text(order().model_dump_json())
    log = EventLog(job.events_file)
    log.append(StateChanged(state=State.QUEUED))
    log.append(Captioning(done=0, total=3, model="wd", device="CPU"))
    log.append(Captioned(name="a.png", text="what the model said before"))
    job.worker_file.write_text(json.dumps({"pid": 2**22 + 1, "started": 1.0}))
    seen = job.view()
    assert seen.state is State.INTERRUPTED and seen.can_resume and "1 picture is captioned" in seen.error.do
    job.resume()
    seen = ended(job)
    assert (seen.state, seen.error, seen.done, seen.total) == (State.FINISHED, None, 3, 3)
    assert texts(data) == {
        "3_boat/d.txt": WHITE, "a.txt": "what the model said before", "b.txt": "a boat by hand", "c.txt": WHITE,
    }  # fmt: skip
    assert sum(isinstance(event, Captioned) and event.name == "a.png" for event in captioning.read(job)) == 1


def test_a_caption_that_was_written_meanwhile_stays(order, data, outputs):
    device = Lock(runs.device_lock(outputs))
    outputs.mkdir()
    assert device.acquire()
    job = captioning.start(order(), outputs)
    job.events_file.write_text("")
    EventLog(job.events_file).append(Captioned(name="a.png", text="what the model said"))
    (data / "a.txt").write_text("by hand")
    device.release()
    seen = ended(job)
    assert texts(data)["a.txt"] == "by hand" and seen.kept == {"a.png"} and seen.written == {"c.png", "3_boat/d.png"}


def test_a_job_waits_for_the_device_and_leaves_when_it_is_cancelled(order, data, outputs):
    outputs.mkdir()
    device = Lock(runs.device_lock(outputs))
    assert device.acquire()
    job = captioning.start(order(), outputs)
    second = captioning.start(order(), outputs)
    assert second.view().waits_for == f"the captioning of {job.name} to end"
    assert [one.name for one in captioning.at_work(outputs)] == [job.name, second.name]
    second.cancel()
    assert ended(second).state is State.INTERRUPTED and second.view().can_resume
    assert job.view().state is State.QUEUED and job.alive
    device.release()
    assert ended(job).state is State.FINISHED
    second.resume()
    assert ended(second).state is State.FINISHED


def test_a_fault_of_the_model_is_told_in_words(data, outputs, tmp_path):
    wrong = tiny.wd14(tmp_path / "wd").parent
    (wrong / "selected_tags.csv").write_text("tag_id,name,category,count\n1,ink,0,2\n")
    job = captioning.start(CaptioningOrder(data=str(data), model=str(wrong)), outputs)
    seen = ended(job)
    assert seen.state is State.FAILED and seen.can_resume
    assert "scores 8 tags and selected_tags.csv lists 1" in seen.error.what and seen.error.do


def test_what_cannot_be_started_is_told_before(order, data, outputs, tmp_path, model):
    with pytest.raises(DatasetError, match="There is no folder"):
        captioning.start(order().model_copy(update={"data": str(tmp_path / "gone")}), outputs)
    with pytest.raises(ModelError, match="There is no model at gone"):
        captioning.start(order().model_copy(update={"model": "gone"}), outputs)
    with pytest.raises(ModelError, match="draws masks"):
        captioning.start(order().model_copy(update={"model": str(tiny.u2net(tmp_path / "u2net.onnx"))}), outputs)
    assert captioning.jobs(outputs) == []


def test_the_time_that_is_left_is_that_of_this_session():
    """A job that continues after a night must not count the night."""
    log = [
        Captioning(at=0, done=0, total=10, model="x", device="CPU"),
        Captioned(at=2, name="a", text="x"),
        StateChanged(state=State.INTERRUPTED),
        Captioning(at=50_000, done=1, total=10, model="x", device="CPU"),
    ]
    assert fold(log[:2]).seconds_left == 18
    assert fold(log[:3]).seconds_left is None
    assert fold([*log, Captioned(at=50_004, name="b", text="x")]).seconds_left == 32


def test_an_error_is_forgotten_when_the_job_is_resumed():
    log = [StateChanged(state=State.QUEUED), Failed(what="No room.")]
    assert fold(log).error.what == "No room."
    assert fold([*log, StateChanged(state=State.QUEUED)]).error is None


@pytest.mark.parametrize("caption, text, joined", [
    ("", "boat, sea", "boat, sea"),
    ("ink", "boat, Ink", "ink, boat"),
    ("ink, boat", "boat", "ink, boat"),
    ("ink,", "boat", "ink, boat"),
    ("one\ntwo", "boat", "one, boat\ntwo, boat"),
])  # fmt: skip
def test_what_is_appended_comes_behind_each_line_and_only_once(caption, text, joined):
    assert caption_writing.appended(caption, text) == joined


def test_fill_changes_nothing_that_is_there(order):
    assert merged({"a": "by hand"}, {"a": "x", "b": "y", "c": ""}, order()) == {"b": "y"}


def test_the_queue_of_runs_and_jobs_is_one(order, outputs, run, monkeypatch):
    """A run that was started after a job waits for it, and says so."""
    from lora_studio.jobs import queue

    monkeypatch.setattr(captioning, "at_work", lambda _: [CaptioningJob(outputs / ".captioning" / "ink-pictures")])
    monkeypatch.setattr(captioning, "place", lambda _: 5)
    for place, told in ((4, ""), (6, "the captioning of ink-pictures to end")):
        monkeypatch.setattr(runner, "place", lambda _, place=place: place)
        monkeypatch.setattr(runner, "at_work", lambda _: [run])
        assert queue.waits_for(run) == told
