"""Judging while training: it changes nothing, is what judging afterwards gives, and survives what stops it."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from lora_studio.config.settings import Settings
from lora_studio.errors import MachineError
from lora_studio.evaluation import judgements, judging
from lora_studio.evaluation.advice import Advice
from lora_studio.evaluation.bench import Bench
from lora_studio.evaluation.judgements import same_tensors
from lora_studio.events import Finished, Judged, StateKept, StepDone, Warned
from lora_studio.runs import Run
from lora_studio.training import evaluations
from lora_studio.training.evaluations import Evaluations
from lora_studio.training.loop import train
from lora_studio.training.requests import Requests


@pytest.fixture
def judging_settings(settings):
    return settings.changed(
        evaluate_every=2, evaluation_prompts=["a cat", "a house"], dropout=0.1, ema=0.5, keep_checkpoints=9
    )


def trained(run):
    return list(train(run, run.settings()))


def found(events, kind):
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.fault(105)
def test_training_is_the_same_and_so_is_judging_afterwards(new_run, judging_settings):
    plain, judged = new_run(judging_settings.changed(evaluate_every=0)), new_run(judging_settings)
    steps, events = trained(plain), trained(judged)
    assert [one.loss for one in found(events, StepDone)] == [one.loss for one in found(steps, StepDone)]
    for place in (lambda run: run.adapter_file, lambda run: run.checkpoint(2) / "state.safetensors"):
        assert same_tensors(place(plain), place(judged))
    told = found(events, Judged)
    assert [(one.step, one.seconds > 0) for one in told] == [(2, True), (4, True)]
    assert not found(events, Warned) or all("judged" not in one.what for one in found(events, Warned))

    during = judgements.judged(judged)
    assert not any(judging.of_a_state(event) for event in judging.judge(judged)), "they would be judged again"
    (judgements.folder(judged) / "step-2" / "judged.json").unlink()
    after = [one for one in judging.judge(judged) if isinstance(one, judgements.Judgement)]
    for one, other in zip(during, after, strict=True):
        for name in ("style", "subject", "drift", "level"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-3, abs=1e-3)
    assert same_tensors(judgements.folder(judged) / "step-2" / "adapter.safetensors",
                        judged.checkpoint(2) / "adapter.safetensors")  # fmt: skip


@pytest.mark.fault(105)
def test_a_run_that_is_killed_while_it_judges_or_has_no_memory_for_it_goes_on(new_run, judging_settings, monkeypatch):
    """It is killed at step 2. Resumed from there it judges that state first, for which memory runs out."""
    run, measure, calls = new_run(judging_settings.changed(keep="best")), Bench.measure, []

    def killed(*_):
        raise KeyboardInterrupt

    def full(*args):
        calls.append(args[1])
        if len(calls) == 1:
            raise torch.OutOfMemoryError("no room")
        return measure(*args)

    monkeypatch.setattr(Bench, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(run)
    assert judgements.judged(run) == []
    monkeypatch.setattr(Bench, "measure", full)
    events = trained(run)
    (warned,) = [one for one in found(events, Warned) if "could not be judged" in one.what]
    assert warned.what == "The state of step 2 could not be judged: there is not enough memory." and warned.do
    assert calls == [2, 4] and [one.step for one in found(events, Judged)] == [4] and found(events, Finished)
    (kept,) = found(events, StateKept)
    assert kept.step == 4 and kept.what.startswith("The adapter is that of the last step. ")


@pytest.mark.fault(105)
def test_no_error_of_judging_ends_the_run_and_after_two_in_a_row_it_is_off(
    new_run, judging_settings, monkeypatch, capsys
):
    plain, run = (
        new_run(judging_settings.changed(evaluate_every=0)),
        new_run(judging_settings.changed(evaluate_every=1)),
    )
    calls = []

    def broken(*args):
        calls.append(args[1])
        raise KeyError("mid_block")

    monkeypatch.setattr(Bench, "measure", broken)
    steps, events = trained(plain), trained(run)
    first, second = [one for one in found(events, Warned) if "judged" in one.what]
    assert first.what == "The state of step 1 could not be judged: KeyError: 'mid_block'" and first.where == "pictures"
    assert first.do == "The run continues. This may be a bug in the studio: the run's worker.log has the details."
    assert second.do.endswith("No more states are judged, since that failed twice in a row; the Judge button does it "
                              "after the run.")  # fmt: skip
    assert calls == [1, 2] and "KeyError" in capsys.readouterr().err
    assert [one.loss for one in found(events, StepDone)] == [one.loss for one in found(steps, StepDone)]
    assert found(events, Finished) and same_tensors(plain.adapter_file, run.adapter_file)
    assert not list(judgements.folder(run).glob("*/unjudged.safetensors"))


@pytest.mark.fault(105)
def test_a_device_that_is_lost_after_the_last_step_takes_nothing_with_it(new_run, judging_settings, monkeypatch):
    lost = RuntimeError("CUDA error: unspecified launch failure")
    monkeypatch.setattr(Bench, "measure", Mock(side_effect=lost))
    run = new_run(judging_settings.changed(evaluate_every=4))
    events = trained(run)
    assert found(events, Finished) and run.adapter_file.is_file()
    assert "The state of step 4 could not be judged" in found(events, Warned)[-1].what
    with pytest.raises(MachineError, match="stopped responding"):
        trained(new_run(judging_settings))


def test_the_best_state_becomes_the_adapter_where_that_is_wanted(tmp_path, monkeypatch):
    run = Run(tmp_path / "ink")
    best = judgements.state_folder(judgements.folder(run), 2) / "adapter.safetensors"
    best.parent.mkdir(parents=True)
    best.write_bytes(b"two")
    run.adapter_file.write_bytes(b"four")
    session = SimpleNamespace(run=run, step=4, settings=Settings(data="x", keep="best", checkpoint_every=0))
    best_of = Evaluations(session, Requests())
    (warned,) = best_of.last()
    assert warned.what == "No state was judged, so the adapter is that of the last step."
    monkeypatch.setattr(evaluations, "advise", lambda _: Advice(2, (2,), ("subjects hold",), None, 4))
    (kept,) = best_of.last()
    assert kept.what == "The adapter is that of step 2, and not of the last one. Keep step 2: subjects hold."
    assert run.adapter_file.read_bytes() == b"two"


def test_the_time_left_counts_the_evaluations_to_come(tmp_path):
    left = SimpleNamespace(step=3, run=Run(tmp_path), settings=Settings(data="x", evaluate_every=4, steps=10))
    known = Evaluations(left, Requests())
    known.seconds = 5.0
    assert known.seconds_left() == 15.0  # steps 4, 8 and 10
    left.step = 8
    assert known.seconds_left() == 5.0
    left.step = 10
    assert known.seconds_left() == 0.0


def test_the_best_state_is_sought_at_saved_states_unless_said_otherwise(tmp_path):
    def every(**how):
        return Evaluations(SimpleNamespace(run=Run(tmp_path), settings=Settings(data="x", **how)), Requests()).every

    assert every() == 0 and every(evaluate_every=40) == 40
    assert every(keep="best") == Settings(data="x").saving.checkpoint_every
    assert every(keep="best", evaluate_every=40) == 40
