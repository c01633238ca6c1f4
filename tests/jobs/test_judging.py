"""Judging jobs on a run of a tiny model: what is judged once, what is kept, how a job ends, and whose turn it is."""

import os
import re
import shutil
from functools import partial
from types import SimpleNamespace

import pytest

from lora_studio import cli, files, runs
from lora_studio.errors import RunError
from lora_studio.evaluation import judgements
from lora_studio.evaluation.bench import Bench
from lora_studio.evaluation.strength import STAGE
from lora_studio.events import JudgingStarted, Preparing, State, StateChanged
from lora_studio.jobs import job as jobs
from lora_studio.jobs import judging, judging_worker, queue, runner
from lora_studio.jobs.eventlog import EventLog
from lora_studio.jobs.judging import JudgingJob, JudgingOrder
from lora_studio.locks import Lock
from lora_studio.runs import Run
from lora_studio.training.loop import train
from tests.jobs.conftest import wait_until

# its folder's conftest makes runs on a tiny model
from tests.training.conftest import pictures, tiny_base, tiny_settings  # noqa: F401

PROMPTS = ("a cat", "a house")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_base, pictures):  # noqa: F811
    how = tiny_settings(tiny_base, pictures)
    made = runs.create(how.changed(keep_checkpoints=9, preview_every=0), tmp_path_factory.mktemp("made") / "outputs")
    assert list(train(made, made.settings()))
    return made


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a run with saved states of steps 2 and 4."""
    shutil.copytree(trained.folder.parent, tmp_path / "outputs")
    return Run(tmp_path / "outputs" / trained.name)


def worked(job, stopping=lambda: False):
    """The job after its worker's part, here in this process."""
    log = EventLog(job.events_file)
    log.append(StateChanged(state=State.QUEUED))
    judging_worker.work(job, log, stopping)
    return job


def ordered(run):
    job = JudgingJob(run.judging)
    files.make_folder(job.folder)
    job.order_file.write_text(JudgingOrder(prompts=PROMPTS).model_dump_json())
    return job


def judgement(step):
    value = judgements.Value(50.0, 40.0, 60.0)
    return judgements.Judgement(step, value, value, value, value, (), {"style": (50.0,)})


def test_a_state_is_judged_whose_saved_state_was_deleted(run):
    kept = judgements.state_folder(judgements.folder(run), 2) / "adapter.safetensors"
    files.make_folder(kept.parent)
    shutil.move(run.checkpoint(2) / "adapter.safetensors", kept)
    assert judgements.states(run) == {2: kept, 4: run.checkpoint(4) / "adapter.safetensors"}


def test_another_adapter_of_the_same_step_is_judged_again(run):
    """A run that was rolled back, or resumed from an earlier state, has another adapter at a step that was judged."""
    place, plan = judgements.folder(run), judgements.JudgingPlan(PROMPTS)
    two, four = (run.checkpoint(step) / "adapter.safetensors" for step in (2, 4))
    files.make_folder(place / "step-2")
    files.copy(two, place / "step-2" / "adapter.safetensors")
    judgements.write(judgement(2), judgements.Conditions("k", plan), place)
    known = partial(Bench.known, SimpleNamespace(place=place, key="k"), 2)
    assert known(two) == judgement(2) and known(four) is None
    assert Bench.known(SimpleNamespace(place=place, key="other"), 2, two) is None
    assert judgements.conditions(run, 2).plan == plan and judgements.conditions(run, 4) is None


def test_states_that_were_judged_otherwise_are_not_compared(run):
    plan = judgements.JudgingPlan(PROMPTS)
    for number, (step, key) in enumerate([(2, "old"), (4, "old"), (6, "new")]):
        judgements.write(judgement(step), judgements.Conditions(key, plan), judgements.folder(run))
        os.utime(judgements.state_folder(judgements.folder(run), step) / "judged.json", (number, number))
    assert [one.step for one in judgements.judged(run)] == [6]
    assert [one.step for one in judgements.judged(run, "old")] == [2, 4]


WORKER = """
import os, sys
from lora_studio.evaluation.bench import Bench
from lora_studio.jobs import judging_worker
save, calls = Bench._save, []
def killed(*args):
    calls.append(1)
    save(*args)
    if len(calls) == 4:  # after those of the base model, and two of the first state
        os.kill(os.getpid(), 9)
Bench._save = killed
sys.exit(judging_worker.main(sys.argv[1]))
"""


@pytest.mark.fault(104)
def test_a_job_that_is_killed_or_cancelled_keeps_what_it_has_judged(run, monkeypatch, capsys):
    """kill -9 once the second state's pictures are written; then cancelled while it draws that state again. The command
    does the rest.
    """
    assert judging.of(run) is None
    popen = runner.subprocess.Popen
    monkeypatch.setattr(runner.subprocess, "Popen", lambda line, **how: popen([line[0], "-c", WORKER, line[3]], **how))
    job = judging.start(run, PROMPTS)
    assert job.alive and judging.start(run, PROMPTS) == job == judging.of(run) and job.name == run.name
    with pytest.raises(RunError, match="is being judged, with other"):
        judging.start(run)
    wait_until(lambda: not job.alive)
    seen = job.view()
    assert (seen.state, seen.done, seen.total, seen.can_resume) == (State.INTERRUPTED, 1, 2, True)
    assert "The judging's process ended unexpectedly" in seen.error.what and "1 state is judged" in seen.error.do
    assert [one.step for one in judgements.judged(run)] == [2]
    monkeypatch.undo()

    looks = []

    def stopping():
        looks.append([one.stage for one in jobs.read(job) if isinstance(one, Preparing)][-1:] == ["step 4"])
        return sum(looks) > 1

    seen = worked(job, stopping).view()
    assert (seen.state, seen.error, seen.done, sum(looks)) == (State.INTERRUPTED, None, 1, 2)

    assert cli.main(["judge", str(run.folder), *(f"--prompt={one}" for one in PROMPTS)]) == 0
    out = capsys.readouterr().out
    assert (
        out.index("step      2  style")
        < out.index("step      4  style")
        < re.search(r"Keep step|In no state", out).start()
        < out.index("Start at")
    )
    seen = job.view()
    assert [(one.step, one.seconds > 0) for one in seen.judged] == [(2, False), (4, True)]
    assert (seen.state, seen.can_resume) == (State.FINISHED, False)


def test_a_job_waits_for_its_turn_and_says_for_what(run):
    device, other = Lock(runs.device_lock(run.folder.parent)), Run(run.folder.parent / "ink")
    other.folder.mkdir()
    shutil.copy(run.settings_file, other.settings_file)
    runner.register_worker(other, os.getpid(), 5)
    assert device.acquire()
    job = judging.start(run, PROMPTS)
    try:
        assert job.view().waits_for == "the run ink to end" and job.view().state is State.QUEUED
        assert [one.title for one in jobs.at_work(run.folder.parent)] == [f"the judging of {run.name}"]
        runner.register_worker(other, os.getpid())
        assert queue.waits_for(other) == f"the judging of {run.name} to end"
        assert cli.main(["stop", run.name, "--outputs", str(run.folder.parent)]) == 0
        assert job.view().stopping or job.view().state.ended
    finally:
        job.cancel()
        wait_until(lambda: not job.alive)
    assert job.view().state is State.INTERRUPTED


def test_what_stops_a_job_is_told(run, monkeypatch):
    job = ordered(run)
    run.settings_file.rename(run.folder / "moved.toml")
    seen = worked(job).view()
    assert seen.state is State.FAILED and "cannot be read" in seen.error.what and seen.error.do
    (run.folder / "moved.toml").rename(run.settings_file)

    def judge(run, prompts, seeds, steps, cancelled, strengths):
        run.settings_file.unlink()
        assert not cancelled()
        yield

    monkeypatch.setattr("lora_studio.evaluation.judging.judge", judge)
    seen = worked(job).view()
    assert seen.state is State.FAILED and seen.error.what == "The run's folder was deleted or renamed."
    for folder in run.checkpoints.iterdir():
        shutil.rmtree(folder)
    with pytest.raises(RunError, match="no saved state to judge"):
        judging.start(run)


def test_the_time_left_is_that_of_states_that_are_not_judged_yet():
    def judged(step, seconds):
        return judgements.event(judgement(step), seconds)

    log = [JudgingStarted(total=5), judged(1, 0), judged(2, 8), judged(3, 4)]
    assert judging.fold(log[:2]).seconds_left is None
    assert judging.fold(log).seconds_left == 12
    assert judging.fold([*log, StateChanged(state=State.INTERRUPTED)]).seconds_left is None


def test_the_strengths_count_in_the_progress_and_the_time_left():
    """All states are judged, the bar is full, and pictures are drawn for minutes."""
    done = judgements.event(judgement(1), 8)
    log = [JudgingStarted(total=1, strengths=3), done]
    seen = judging.fold(log)
    assert seen.progress == 0.25 and seen.seconds_left == 24
    for at, count in enumerate((0, 3, 6)):
        log.append(Preparing(at=100 + 6 * at, stage=f"{STAGE}1", done=count, total=12))
    seen = judging.fold(log)
    assert seen.progress == 0.625 and seen.seconds_left == 12
