"""Finding the learning rate before the first step: nothing of it stays but the rate."""

import pytest

from lora_studio import adapters, events
from lora_studio.adapters import recipe
from lora_studio.events import Finished, RateFound, Started, State, StepDone, Warned
from lora_studio.optim import range_test
from lora_studio.training import rate_search
from lora_studio.training.loop import train
from lora_studio.training.train_step import Diverged
from tests.training.test_loop import Asking, assert_same, collect, of, state_tensors, tensors

QUIET = {"preview_every": 0, "validate_every": 0, "checkpoint_every": 2, "batch": 1}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Eight steps in place of sixty, in cycles of three."""
    monkeypatch.setattr(range_test, "STEPS", 8)
    monkeypatch.setattr(range_test, "CYCLE", 3)


def test_the_run_is_the_one_with_the_found_rate_given(new_run, settings):
    """To the bit, with everything that draws random numbers, and where it is resumed, which does not look again. LoRA+
    keeps its ratio, and the text encoders' rate its own.
    """
    random = {"dropout": 0.3, "ema": 0.9, "accumulate": 2, "flip": True, "lora_plus": 4, "noise_offset": 0.1}
    settings = settings.changed(**QUIET, **random, text_learning_rate=1e-3)
    run = new_run(settings.changed(find_rate=True))
    seen = []
    for event in train(run, run.settings()):
        seen.append(event)
        if isinstance(event, StepDone) and event.step == 3:
            break  # the worker dies here, one step after it saved a state
    (found,) = of(RateFound, seen)
    assert seen.index(found) < seen.index(of(Started, seen)[0]) and found.found and found.rate != 1e-2
    kept = run.settings().optimizer
    assert (kept.learning_rate, kept.text_learning_rate) == (found.rate, pytest.approx(found.rate / 10))
    assert events.parse(run.rate_file.read_bytes()) == found
    assert not of(RateFound, collect(run))
    given = new_run(settings.changed(learning_rate=found.rate, text_learning_rate=kept.text_learning_rate))
    collect(given)
    assert_same(tensors(given.adapter_file), tensors(run.adapter_file))
    assert_same(state_tensors(given), state_tensors(run))
    told = recipe.read(adapters.read(run.adapter_file).metadata).settings
    assert (told["learning_rate"], told["find_rate"]) == (found.rate, True)


def test_a_rate_at_which_it_diverges_ends_the_test_and_not_the_run(new_run, settings, monkeypatch):
    real, rates = rate_search.step_at_rates, []

    def step(session):
        rates.append(session.stepper.optimizer.param_groups[0]["lr"])
        if len(rates) == 6:
            raise Diverged("The loss is NaN.")
        return real(session)

    monkeypatch.setattr(rate_search, "step_at_rates", step)
    monkeypatch.setattr(range_test, "NOTICEABLE", 0.0)
    run = new_run(settings.changed(**QUIET, find_rate=True, steps=1))
    seen = collect(run)
    (found,) = of(RateFound, seen)
    assert len(rates) == 6 and rates[0] == pytest.approx(1e-5) and isinstance(seen[-1], Finished)
    assert len(found.rates) == 4 and found.losses[-1] == float("inf") and found.rate == 3.3e-5
    assert not [one for one in of(Warned, seen) if "rate" in one.what]


def test_whoever_stops_meanwhile_looks_again_later_and_a_loss_that_nothing_lowers_leaves_the_rate(
    new_run, settings, monkeypatch
):
    run, asking = new_run(settings.changed(**QUIET, find_rate=True, steps=1)), Asking()
    seen = []
    for event in train(run, run.settings(), asking):
        seen.append(event)
        if isinstance(event, events.Preparing) and event.stage == "learning rates" and event.done == 1:
            asking.wants.add("stop")
    assert seen[-1].state == State.INTERRUPTED and not run.rate_file.exists() and not of(RateFound, seen)
    monkeypatch.setattr(range_test, "NOTICEABLE", 1.0)
    (found,) = of(RateFound, collect(run))
    assert (found.found, found.rate, run.settings().optimizer.learning_rate) == (False, 1e-2, 1e-2)
    assert found.sentence == "No learning rate between 1e-5 and 0.08 lowered the loss clearly: it stays 0.01."
