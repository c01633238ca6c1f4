"""A study's trials: chosen by a grid, at random or by TPE, pruned, kept in a database or a journal, and run again where
they were interrupted.
"""

import math
import os
import signal
import subprocess
import sys
import threading

import pytest
from optuna.trial import TrialState as OptunaState

from lora_studio.errors import ModelError, RunError
from lora_studio.sweeps.outcome import TrialState
from lora_studio.sweeps.store import Interrupted, Pruned, TrialStore
from tests.sweeps.conftest import outcome

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
GRID = {"axes": {"rank": [4, 8], "alpha": [2.0, 4.0]}}


def style(attempt):
    return outcome(10 * attempt.params["rank"] + attempt.params["alpha"])


def finish(store, perform=style):
    while store.left():
        store.run_next(perform)
    return store.trials()


@pytest.mark.parametrize("place", ["", "shared {x}% é.log"])
def test_a_grid_is_worked_through_once(new_study, tmp_path, place):
    """In an SQLite file and in a journal; what was found is there for the next process."""
    study = new_study(GRID, "stüdy {1}? #%41", str(tmp_path / place) if place else "")
    with TrialStore(study) as store:
        trials = finish(store)
        store.run_next(style)
        assert store.trials() == trials, "there is nothing more to run"
    found = [(trial.number, trial.params["rank"], trial.params["alpha"], trial.outcome.style.value) for trial in trials]
    assert found == [(1, 4, 2.0, 42), (2, 4, 4.0, 44), (3, 8, 2.0, 82), (4, 8, 4.0, 84)]
    assert {trial.state for trial in trials} == {TrialState.FINISHED}
    study.note(trials)
    with TrialStore(study) as store:
        assert store.trials() == trials == study.noted() and store.left() == 0
    assert (tmp_path / place).is_file() if place else study.database.is_file()


def test_several_at_once_never_do_the_same(new_study):
    """SQLite has no locks on rows: without care two processes take the same trial."""
    study, seen, mutex = new_study({"axes": {"rank": list(range(1, 13))}}, storage=""), [], threading.Lock()

    def perform(attempt):
        with mutex:
            seen.append(attempt.params["rank"])
        return outcome(50)

    def lane(number):
        with TrialStore(study, number) as store:
            together.wait()
            finish(store, perform)

    together = threading.Barrier(4)
    lanes = [threading.Thread(target=lane, args=[number]) for number in range(4)]
    for one in lanes:
        one.start()
    for one in lanes:
        one.join()
    assert sorted(seen) == list(range(1, 13))


def test_a_trial_that_others_gave_up_meanwhile_ends_quietly(new_study):
    """As after a night in which the computer slept."""
    with TrialStore(new_study({"axes": {"rank": [4]}})) as store:

        def perform(attempt):
            store._trials.tell(attempt._trial.number, state=OptunaState.FAIL)
            return outcome(50)

        store.run_next(perform)
        (trial,) = finish(store, lambda attempt: outcome(60))
    assert (trial.number, trial.state, trial.outcome.style.value) == (1, "finished", 60)


KILLED = """
import sys, time
from pathlib import Path
from lora_studio.sweeps.store import TrialStore
from lora_studio.sweeps.study import Study
from tests.sweeps.test_store import style
def perform(attempt):
    if attempt.number == 2:
        print("at work", flush=True)
        time.sleep(600)
    return style(attempt)
with TrialStore(Study(Path(sys.argv[1]))) as store:
    while store.left():
        store.run_next(perform)
"""


@pytest.mark.parametrize("place", ["", "shared.log"])
def test_a_killed_process_loses_the_trial_that_was_at_work_and_no_other(new_study, tmp_path, place):
    study = new_study(GRID, storage=str(tmp_path / place) if place else "")
    with subprocess.Popen([sys.executable, "-c", KILLED, str(study.folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"at work\n"
        with TrialStore(study) as other:
            other.repair()
            assert [trial.state for trial in other.trials()[:2]] == [TrialState.FINISHED, TrialState.RUNNING]
        os.kill(process.pid, signal.SIGKILL)
    again = []
    with TrialStore(study) as store:
        store.repair()
        assert [trial.state for trial in store.trials()] == ["finished", "waiting", "waiting", "waiting"]
        trials = finish(store, lambda attempt: again.append(attempt.number) or style(attempt))
    assert sorted(again) == [2, 3, 4]
    assert [trial.number for trial in trials] == [1, 2, 3, 4] and {trial.state for trial in trials} == {"finished"}
    assert not list(study.folder.glob(".worker-*"))


def test_a_trial_that_was_stopped_is_run_again_and_one_that_fails_is_not(new_study):
    stops = iter([True] * 7)

    def perform(attempt):
        if attempt.number == 1 and next(stops, False):
            raise Interrupted(by_user=True)
        if attempt.number == 3:
            raise RunError("The memory is full.", do="Set batch to 1.")
        return style(attempt)

    with TrialStore(new_study(GRID)) as store:
        trials = finish(store, perform)
    assert [(trial.number, trial.state, trial.error) for trial in trials] == [
        (1, "finished", ""),
        (2, "finished", ""),
        (3, "failed", "The memory is full. Set batch to 1."),
        (4, "finished", ""),
    ]


def test_a_trial_whose_process_always_vanishes_fails_in_the_end(new_study):
    def perform(attempt):
        raise Interrupted(by_user=False)

    with TrialStore(new_study({"axes": {"rank": [4]}})) as store:
        (trial,) = finish(store, perform)
    assert trial.state == "failed" and trial.error.startswith("Its process ended unexpectedly 5 times.")


def test_a_style_that_cannot_be_measured_fails_its_trial(new_study):
    """Judging raises that; no outcome holds a style that is not a number."""

    def perform(attempt):
        raise ModelError("Step 10 cannot be measured.", do="Set precision to fp32.")

    with TrialStore(new_study({"axes": {"rank": [4]}})) as store:
        (trial,) = finish(store, perform)
    assert trial.state == "failed" and trial.error.startswith("Step 10 cannot be measured")
    with pytest.raises(ValueError, match="finite"):
        outcome(math.nan)


def test_trials_that_fall_behind_are_pruned(new_study):
    """Six good trials come first; then one that is worse at its first evaluation stops there."""
    axes = {"rank": [100, 90, 95, 92, 96, 91, 5]}
    steps = []

    def perform(attempt):
        for step in (10, 20):
            steps.append((attempt.number, step))
            if attempt.falls_behind(step, attempt.params["rank"] * step / 20):
                raise Pruned(outcome(attempt.params["rank"] / 2, step=step))
        return outcome(attempt.params["rank"])

    with TrialStore(new_study({"axes": axes, "prune": True})) as store:
        trials = finish(store, perform)
    assert (trials[6].state, trials[6].outcome.step, trials[6].outcome.style.value) == ("pruned", 10, 2.5)
    assert trials[0].state == "finished" and (7, 20) not in steps


def test_tpe_comes_nearer_to_the_best_that_keeps_its_subjects(new_study):
    """Style rises with the rate, but above 1e-3 subjects fade: the draws end below that, and not at its top."""
    table = {"axes": {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}}, "sampler": "tpe", "trials": 30}

    def perform(attempt):
        rate = attempt.params["learning_rate"]
        return outcome(100 + 10 * math.log10(rate), subject=0.5 if rate < 1e-3 else 0.1)

    with TrialStore(new_study({**table, "prune": False})) as store:
        trials = finish(store, perform)
    assert len(trials) == 30
    rates = [math.log10(trial.params["learning_rate"]) for trial in trials]
    distance = [abs(rate + 3) for rate in rates]
    assert sum(distance[-10:]) < sum(distance[:10])


def test_importances_name_what_matters(new_study):
    table = {"axes": {"rank": {"low": 1, "high": 100}, "alpha": {"low": 1, "high": 100}}, "sampler": "random"}
    with TrialStore(new_study({**table, "trials": 25})) as store:
        finish(store, lambda attempt: outcome(attempt.params["alpha"]))
        assert next(iter(store.importances())) == "alpha"
        assert sum(store.importances().values()) == pytest.approx(1)


def test_a_storage_that_cannot_be_opened_is_told(new_study, tmp_path):
    study = new_study(GRID, storage=str(tmp_path / "missing" / "trials.db"))
    with pytest.raises(RunError, match="The study's storage cannot be used: .*unable to open database file"):
        TrialStore(study)
