"""Captioning jobs with a real process and a tiny tagger: what is written where, what is kept, whose turn it is."""

import json
import os
import signal

import pytest
from PIL import Image

from lora_studio import runs
from lora_studio.curation.workbench import Workbench
from lora_studio.errors import DatasetError, ModelError, RunError
from lora_studio.events import Captioned, CaptioningStarted, Failed, State, StateChanged
from lora_studio.jobs import caption_writing, captioner, captioning, identity, runner
from lora_studio.jobs.captioning import CaptioningJob, CaptioningOrder, Mode, merged
from lora_studio.jobs.captioning_view import fold
from lora_studio.jobs.eventlog import EventLog
from lora_studio.jobs.renderer import Renderer
from lora_studio.locks import Lock
from lora_studio.vision.options import SentenceOptions, TagOptions
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
        tags = TagOptions(general=0.5)
        return CaptioningOrder(data=str(data), model=model, mode=mode, tags=tags, **{"style": True, **more})

    return make


@pytest.fixture(autouse=True)
def no_worker_outlives_its_test(outputs):
    yield
    for job in captioning.jobs(outputs):
        if (worker := identity.read(job.worker_file)) and worker["pid"] != os.getpid():
            os.kill(worker["pid"], signal.SIGKILL if os.name != "nt" else signal.SIGTERM)


def worked(order, outputs):
    """The job after its worker's part, here in this process."""
    job = CaptioningJob(runs.new_captioning("ink", outputs))
    job.order_file.write_text(captioning.checked(order, outputs).model_dump_json())
    captioner.work(job, EventLog(job.events_file), job.stop_file.exists)
    return job


def continued(job):
    """The same after a worker that resumes it."""
    job.stop_file.unlink(missing_ok=True)
    log = EventLog(job.events_file)
    log.append(StateChanged(state=State.QUEUED))
    captioner.work(job, log, job.stop_file.exists)
    return job.view()


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
    job = worked(order(Mode.APPEND, names=("b.png",)), outputs)
    assert job.view().written == {"b.png"}
    assert texts(data)["b.txt"].splitlines() == [
        f"a boat, {WHITE}",
        "Hatsune Miku, a ship, rose (flower), watercolor (medium), >_<",
    ]


def test_a_caption_goes_back_where_it_came_from(order, data, outputs):
    """Rows of a table and objects beside pictures are captions too: they are not empty, and appended to in place."""
    (data / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a house", "seed": 7}\n')
    (data / "c.json").write_text('{"caption": "a tree"}')
    assert worked(order(), outputs).view().written == {"3_boat/d.png"}
    assert worked(order(Mode.APPEND, names=("a.png", "c.png")), outputs).view().written == {"a.png", "c.png"}
    row = json.loads((data / "metadata.jsonl").read_text())
    assert row == {"file_name": "a.png", "text": f"a house, {WHITE}", "seed": 7}
    assert json.loads((data / "c.json").read_text()) == {"caption": f"a tree, {WHITE}"}
    assert not (data / "a.txt").exists() and not (data / "c.txt").exists()


def test_a_folder_that_is_called_like_a_model_does_not_take_its_place(order, outputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(captioning, "model_for", lambda _: None)
    (tmp_path / "wd14").mkdir()
    for model, meant in (("wd14", "wd14"), ("./wd14", str(tmp_path / "wd14"))):
        assert captioning.checked(order().model_copy(update={"model": model}), outputs).model == meant


def test_proposals_write_nothing_until_they_are_accepted(order, data, outputs):
    job = worked(order(Mode.PROPOSE), outputs)
    assert not job.view().written and texts(data) == {"b.txt": "a boat by hand"}
    assert job.proposals() == dict.fromkeys(["a.png", "b.png", "c.png", "3_boat/d.png"], WHITE)
    job.dismiss(["a.png"])
    assert job.accept(["b.png", "gone.png"]) == ["b.png"]
    assert texts(data) == {"b.txt": WHITE} and set(job.proposals()) == {"c.png", "3_boat/d.png"}
    assert sorted(job.accept()) == ["3_boat/d.png", "c.png"] and job.proposals() == {}


def test_a_job_that_has_ended_is_removed_with_its_proposals(order, outputs):
    job = worked(order(Mode.PROPOSE), outputs)
    job.remove()
    assert captioning.jobs(outputs) == [] and not job.folder.exists()


def test_proposals_need_no_consent_but_writing_them_does(order, data, outputs):
    (data / ".lora_studio").rmdir()
    job = worked(order(Mode.PROPOSE), outputs)
    assert job.view().state is State.FINISHED and not (data / ".lora_studio").exists()
    with pytest.raises(DatasetError, match="not been allowed to write"):
        job.accept()
    assert len(job.proposals()) == 4
    with pytest.raises(DatasetError, match="not been allowed to write"):
        captioning.start(order(Mode.FILL), outputs)


def test_a_dataset_that_the_studio_made_needs_none(order, outputs, model):
    made = runs.new_pictures("ink", outputs)
    Image.new("RGB", (80, 80), "white").save(made / "a.png")
    job = worked(CaptioningOrder(data=str(made), model=model), outputs)
    assert job.view().written == {"a.png"}


WORKER = """
import os, sys
from lora_studio.jobs import captioner
load, calls = captioner.load, []
def counted(found, order):
    model = load(found, order)
    def describe(images):
        calls.append(1)
        if len(calls) == 2:
            {then}
        return model.describe(images)
    return model._replace(describe=describe)
captioner.load = counted
sys.exit(captioner.main(sys.argv[1]))
"""


@pytest.fixture
def second_batch(monkeypatch):
    """Makes workers do something else when they come to their second batch."""
    popen = runner.subprocess.Popen

    def become(then):
        code = WORKER.format(then=then)

        def begin(command, **how):
            return popen([command[0], "-c", code, command[3]], **how)

        monkeypatch.setattr(runner.subprocess, "Popen", begin)

    return become


def looked_at(job):
    return [event.name for event in captioning.read(job) if isinstance(event, Captioned)]


@pytest.mark.fault(100)
def test_a_killed_job_keeps_what_it_had_and_looks_at_nothing_twice(order, data, outputs, second_batch, monkeypatch):
    """kill -9: nothing can be written any more, so the dataset is as it was until the job is resumed."""
    second_batch("os.kill(os.getpid(), 9)")
    job = captioning.start(order(batch=1), outputs)
    wait_until(lambda: not job.alive)
    seen = job.view()
    assert seen.state is State.INTERRUPTED and seen.can_resume and (seen.done, seen.total) == (1, 3)
    assert "was killed" in seen.error.what and "1 picture is captioned" in seen.error.do
    assert texts(data) == {"b.txt": "a boat by hand"}
    monkeypatch.undo()
    job.resume()
    seen = ended(job)
    assert (seen.state, seen.error, seen.done, seen.total) == (State.FINISHED, None, 3, 3)
    assert sorted(looked_at(job)) == ["3_boat/d.png", "a.png", "c.png"]
    assert texts(data) == {"3_boat/d.txt": WHITE, "a.txt": WHITE, "b.txt": "a boat by hand", "c.txt": WHITE}


def no_memory():
    raise RuntimeError("DefaultCPUAllocator: not enough memory")


def divides():
    raise ZeroDivisionError("x")


@pytest.mark.parametrize("then, state, said", [
    (None, State.INTERRUPTED, ""),
    (no_memory, State.FAILED, "does not fit in memory"),
    (divides, State.FAILED, "Internal error: ZeroDivisionError"),
])  # fmt: skip
@pytest.mark.fault(100)
def test_a_job_that_stops_or_fails_writes_what_it_had(order, data, outputs, monkeypatch, then, state, said):
    """At its second picture it is stopped, or something happens."""
    load, calls = captioner.load, []

    def loaded(found, order):
        model = load(found, order)

        def describe(images):
            calls.append(1)
            if len(calls) == 2:
                then() if then else captioning.jobs(outputs)[0].cancel()
            return model.describe(images)

        return model._replace(describe=describe)

    monkeypatch.setattr(captioner, "load", loaded)
    job = worked(order(batch=1), outputs)
    seen = job.view()
    assert seen.state is state and seen.can_resume and len(seen.written) == seen.done == (1 if then else 2)
    assert said in seen.error.what and seen.error.do if said else seen.error is None
    seen = continued(job)
    assert (seen.state, seen.error, seen.done, seen.total) == (State.FINISHED, None, 3, 3)
    assert sorted(seen.written) == sorted(looked_at(job)) == ["3_boat/d.png", "a.png", "c.png"]


def test_fewer_pictures_are_looked_at_together_where_memory_runs_out(order, data, outputs, monkeypatch):
    load, sizes = captioner.load, []

    def loaded(found, order):
        model = load(found, order)

        def describe(images):
            sizes.append(len(images))
            return no_memory() if len(images) > 1 else model.describe(images)

        return model._replace(describe=describe)

    monkeypatch.setattr(captioner, "load", loaded)
    seen = worked(order(batch=3), outputs).view()
    assert (seen.state, seen.done, sizes) == (State.FINISHED, 3, [3, 1, 1, 1])
    assert [one.what for one in seen.warnings] == ["Memory ran out: from now on 1 at once."]


def test_a_captioner_writes_sentences(data, outputs, tmp_path):
    """BLIP's architecture, in a process of its own."""
    order = CaptioningOrder(
        data=str(data), model=str(tiny.blip(tmp_path / "blip")), sentences=SentenceOptions(max_tokens=9)
    )
    seen = ended(captioning.start(order, outputs))
    assert (seen.state, seen.error, seen.done) == (State.FINISHED, None, 3) and seen.device
    assert {name: one.text for name, one in seen.captions.items() if one.text} == {
        f"{name.removesuffix('.txt')}.png": text for name, text in texts(data).items() if name != "b.txt"
    }


@pytest.mark.fault(101)
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
    job = worked(CaptioningOrder(data=str(data), model=str(wrong)), outputs)
    seen = job.view()
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
        CaptioningStarted(at=0, done=0, total=10, model="x", device="CPU"),
        Captioned(at=2, name="a", text="x"),
        StateChanged(state=State.INTERRUPTED),
        CaptioningStarted(at=50_000, done=1, total=10, model="x", device="CPU"),
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
def test_tags_come_behind_each_line_and_only_once(caption, text, joined):
    assert caption_writing.with_tags(caption, text) == joined


@pytest.mark.parametrize("caption, joined", [
    ("", "A red, small boat."),
    ("ink", "ink, A red, small boat."),
    ("small boat., ink", "small boat., ink, A red, small boat."),
    ("A sea.\nink, A red, small boat.", "A sea. A red, small boat.\nink, A red, small boat."),
])  # fmt: skip
def test_sentences_come_as_a_whole_behind_each_line_and_only_once(caption, joined):
    assert merged({"a": caption}, {"a": "A red, small boat."}, Mode.APPEND, tags=False) == {"a": joined}
    assert merged({"a": joined}, {"a": "A red, small boat."}, Mode.APPEND, tags=False) == {}


def test_fill_changes_nothing_that_is_there():
    assert merged({"a": "by hand"}, {"a": "x", "b": "y", "c": ""}, Mode.FILL, tags=True) == {"b": "y"}


@pytest.fixture
def at_work(outputs):
    """A captioning job whose worker is this process."""
    job = CaptioningJob(runs.new_captioning("ink-pictures", outputs))
    job.register(os.getpid())
    return job


def test_no_images_are_drawn_meanwhile(outputs, at_work):
    with pytest.raises(RunError, match="while pictures are captioned"):
        Renderer(outputs, outputs)._started()


def test_the_queue_of_runs_and_jobs_is_one(outputs, run, at_work, monkeypatch):
    """A run that was started after a job waits for it, and says so."""
    from lora_studio.jobs import job, queue

    number = job.place(at_work)
    for place, told in ((number - 1, ""), (number + 1, "the captioning of ink-pictures to end")):
        monkeypatch.setattr(runner, "place", lambda _, place=place: place)
        monkeypatch.setattr(runner, "at_work", lambda _: [run])
        assert queue.waits_for(run) == told


def test_pictures_that_share_a_caption_file_get_the_first_one_s_caption(tmp_path):
    """All captions of a job are lost for two that cannot both be written, or the last one counts."""
    (tmp_path / ".lora_studio").mkdir()
    for name in ("a.jpg", "a.png", "b.png"):
        (tmp_path / name).touch()
    captions = {"gone.png": "0", "a.jpg": "1", "a.png": "2", "b.png": "3"}
    assert caption_writing.write(tmp_path, captions, tmp_path / "outputs") == ["a.jpg", "b.png"]
    assert (tmp_path / "a.txt").read_text() == "1\n"
