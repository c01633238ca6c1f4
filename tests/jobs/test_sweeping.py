"""Studies on a tiny model, with the real loop: a grid, trials that are pruned, and kill -9 in the middle."""

import os
import signal
import threading

import psutil
import pytest

from lora_studio import cli, runs
from lora_studio.errors import RunError
from lora_studio.evaluation import judgements
from lora_studio.events import Failed, State, StateChanged
from lora_studio.jobs import identity, runner, sweeper, sweeping, trial_worker, view
from lora_studio.jobs import job as jobs
from lora_studio.jobs.eventlog import EventLog
from lora_studio.jobs.sweeper import SharedDevice
from lora_studio.jobs.sweeping import Device, SweepingJob
from lora_studio.locks import Lock
from lora_studio.sweeps import space, study
from lora_studio.sweeps.store import Pruned
from tests.jobs.conftest import wait_until

# its folder's conftest makes runs on a tiny model
from tests.training.conftest import pictures, tiny_base, tiny_settings  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
long = pytest.mark.skipif(not os.environ.get("LORA_STUDIO_LONG_TESTS"), reason="set LORA_STUDIO_LONG_TESTS to run it")
BRIEF = {"steps": 2, "evaluation_prompts": ["a cat", "a house"], "preview_prompts": ["a cat"], "preview_steps": 1}


@pytest.fixture
def new_study(tmp_path, tiny_base, pictures):  # noqa: F811
    def make(axes, **more):
        sweep = space.checked({"axes": axes, "settings": BRIEF, **more, "name": "few"}, "few.toml")
        tiny = tiny_settings(tiny_base, pictures)
        kept = ("data", "base", "trigger", "resolution", "batch", "device", "max_upscale")
        return study.begin(sweep, sweep.base(**{key: tiny[key] for key in kept}), tmp_path / "outputs")

    return make


@pytest.fixture
def in_threads(monkeypatch):
    """Trials' runs in threads of this process, which has loaded torch; one trains at a time, as models cannot be loaded
    in two threads. Returns the threads by the runs' folders.
    """
    threads, mutex = {}, threading.Lock()

    def work(run):
        log = EventLog(run.events_file)
        with mutex:
            for event in trial_worker.events(run, threading.Event()):
                log.append(event)

    def launch(run, device):
        threads[run.folder] = threading.Thread(target=work, args=[run])
        threads[run.folder].start()

    monkeypatch.setattr(sweeper, "_launch", launch)
    monkeypatch.setattr(sweeper.runner, "works", lambda run: run.folder in threads and threads[run.folder].is_alive())
    return threads


def free(outputs):
    return SharedDevice(outputs, others=lambda: False, taken=lambda: None, given_back=lambda: None)


def test_a_grid_with_the_real_loop_on_two_devices(new_study, in_threads, capsys):
    found = new_study({"rank": [1, 2]})
    outputs = found.outputs
    assert sweeper.work(found, [Device("cpu"), Device("cpu")], lambda: False, free(outputs))
    trials = found.noted()
    assert [(one.number, one.state, one.params["rank"]) for one in trials] == [(1, "finished", 1), (2, "finished", 2)]
    assert all(one.outcome.step == 2 and len(one.outcome.samples) == 1000 and one.seconds > 0 for one in trials)
    assert len(in_threads) == 2
    assert not runs.existing(outputs), "trials are not among the runs"
    made = found.run(2)
    assert made.cache == runs.cache_folder(outputs) and made.settings().adapter.rank == 2
    assert not list(made.checkpoints.iterdir()), "states that only resuming needs are deleted"

    name = found.name
    assert cli.main(["sweep", name, "--show", "--outputs", str(outputs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["trial", "rank", "style", "subjects", "copies", "time"]
    assert {line.split()[0] for line in lines[1:3]} == {"1", "2"} and lines[4].startswith("Trial ")
    assert cli.main(["sweep", name, "--keep", "2", "--outputs", str(outputs)]) == 0
    kept = runs.find(f"{name}-2", outputs)
    assert kept.adapter_file.read_bytes() == made.adapter_file.read_bytes()
    assert [one.step for one in judgements.judged(kept)] == [2] and view.fold(kept).state is State.FINISHED
    assert study.keep(found, 2) == kept
    with pytest.raises(RunError, match="Trial 9 of .* has no adapter here"):
        study.keep(found, 9)
    assert cli.main(["sweep", "--outputs", str(outputs)]) == 0
    assert f"{name}  2 of 2 trials" in capsys.readouterr().out
    sweeping.remove(found)
    assert not found.folder.exists() and kept.adapter_file.exists()


@long
def test_a_trial_that_falls_behind_is_stopped(new_study, in_threads):
    found = new_study({"rank": [1]}, settings={**BRIEF, "steps": 200, "evaluate_every": 2}, prune=True)
    lane = sweeper._Lane(found, 0, Device("cpu"), lambda: False, free(found.outputs))

    class Attempt:
        number, params = 1, {"rank": 1}

        def falls_behind(self, step, style):
            return True

    with pytest.raises(Pruned) as pruned:
        lane.perform(Attempt())
    assert pruned.value.outcome.step < 200
    end = view.fold(found.run(1)).finished
    assert end.stopped and end.steps < 200


def test_a_run_that_fails_is_told_with_its_reason(new_study, monkeypatch):
    found = new_study({"rank": [1, 2]})

    def launch(run, device):
        failed = Failed(what="There is not enough memory.", do="Set batch to 1.")
        EventLog(run.events_file).append(failed if run == found.run(1) else StateChanged(state=State.RUNNING))

    monkeypatch.setattr(sweeper, "_launch", launch)
    assert sweeper.work(found, [Device()], lambda: False, free(found.outputs))
    first, second = found.noted()
    assert first.error == f"There is not enough memory. [{found.run(1).folder}] Set batch to 1."
    assert second.error.startswith("Its process ended unexpectedly 5 times.")


def test_the_device_goes_to_others_between_two_trials(tmp_path):
    waiting, told = [False], []
    shared = SharedDevice(tmp_path, lambda: waiting[0], lambda: told.append("taken"), lambda: told.append("given"))
    other = Lock(runs.device_lock(tmp_path))
    with shared.held(lambda: False) as one, shared.held(lambda: False) as two:
        assert one and two and not other.acquire()
        waiting[0] = True
        with shared.held(lambda: True) as third:
            assert not third
    assert other.acquire() and told == ["taken", "taken", "given", "given"]
    other.release()
    with shared.held(lambda: True) as held:
        assert not held


@pytest.fixture
def no_process_outlives_its_test(tmp_path):
    yield
    for note in tmp_path.glob("outputs/.sweeps/**/worker.json"):
        if worker := identity.read(note):
            os.kill(worker["pid"], signal.SIGKILL)


@long
def test_kill_9_of_everything_loses_the_trial_at_work_alone(new_study, no_process_outlives_its_test):
    """The study's process and that of its trial are killed in the second trial; continued, the first is not run again.
    A run waits meanwhile, and the command says so.
    """
    found = new_study({"rank": [1, 2]})
    job = sweeping.start(found)
    assert jobs.at_work(found.outputs)[0].title == f"the sweep {found.name}"
    wait_until(lambda: found.run(2).worker_file.exists() and runner.works(found.run(2)), 240)
    trial = identity.read(found.run(2).worker_file)["pid"]
    os.kill(identity.read(job.worker_file)["pid"], signal.SIGKILL)
    os.kill(trial, signal.SIGKILL)
    wait_until(lambda: not job.alive and not runner.works(found.run(2)))
    seen = SweepingJob(found.folder).view()
    assert (seen.state, seen.done, seen.total, seen.can_resume) == (State.INTERRUPTED, 1, 2, True)
    assert "ended unexpectedly" in seen.error.what
    first = found.run(1).adapter_file.stat().st_mtime_ns
    job.resume()
    wait_until(lambda: job.view().state.ended, 240)
    seen = job.view()
    assert seen.state is State.FINISHED, seen.error
    assert [(one.number, one.state) for one in seen.trials] == [(1, "finished"), (2, "finished")]
    assert found.run(1).adapter_file.stat().st_mtime_ns == first and not seen.can_resume


def test_a_trial_ends_with_the_process_that_started_it(new_study, no_process_outlives_its_test):
    """Else it would hold the GPU for nobody."""
    found = new_study({"rank": [1]}, settings={**BRIEF, "steps": 100_000})
    job = sweeping.start(found)
    wait_until(lambda: found.run(1).worker_file.exists() and runner.works(found.run(1)), 240)
    trial = psutil.Process(identity.read(found.run(1).worker_file)["pid"])
    os.kill(identity.read(job.worker_file)["pid"], signal.SIGKILL)
    wait_until(lambda: not trial.is_running() or trial.status() == psutil.STATUS_ZOMBIE)
