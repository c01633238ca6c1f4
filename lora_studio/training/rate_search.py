"""Finds the learning rate of a run before its first step: ``optim.range_test`` with the run's own steps."""

from __future__ import annotations

import math
from collections.abc import Generator

from lora_studio import files
from lora_studio.config.presets import save_settings
from lora_studio.config.specs import SPECS
from lora_studio.events import Event, Preparing, RateFound
from lora_studio.language import tr
from lora_studio.optim import build, range_test
from lora_studio.optim import registry as optimizers
from lora_studio.training.session import Session
from lora_studio.training.train_step import Diverged, step_at_rates

_OTHER_RATES = ("text_learning_rate", "token_learning_rate")


def needed(session: Session) -> bool:
    """Whether the rate is to be found: it is asked for, nothing was learned yet, and it was not found before."""
    values = session.settings.optimizer
    wanted = values.find_rate and optimizers.get(values.optimizer).rate_can_be_found
    return wanted and session.step == 0 and not session.run.rate_file.exists()


def find(session: Session) -> Generator[Event, None, RateFound]:
    """Tries rates that rise from step to step, puts everything back as it was, to the bit, gives the session the rate
    that was found, and returns what was found. Several processes do this together and find the same.

    Raises:
        NothingLearned: the very first loss is NaN or infinite.
    """
    values = session.settings.optimizer
    before, tried = session.copied_state(), range_test.rates(optimizers.get(values.optimizer))
    losses: list[float] = []
    for number, rate in enumerate(tried):
        yield Preparing(stage=tr("learning rates"), done=number, total=len(tried))
        losses.append(_loss(session, number, rate / values.learning_rate))
        if range_test.diverged(losses):
            break
    session.restore(before)
    curve = range_test.curve(tried, losses)
    found = range_test.suggestion(curve)
    if found:
        _take(session, found)
    return RateFound(
        rate=session.settings.optimizer.learning_rate,
        found=found is not None,
        low=tried[0],
        high=tried[-1],
        rates=tuple(curve.rates),
        losses=tuple(curve.losses),
    )


def keep(session: Session, found: RateFound) -> None:
    """Notes what was found, and writes the rate into the run's settings."""
    run, settings = session.run, session.settings
    rates = {key: settings[key] for key in ("learning_rate", *_OTHER_RATES)}
    save_settings(run.settings().changed(**rates), run.settings_file)
    files.write(run.rate_file, found.line())


def _loss(session: Session, number: int, factor: float) -> float:
    """The mean loss of a step at ``factor`` times the rates; infinite where it diverges. The same few batches come up
    in turn.
    """
    session.step = number % range_test.CYCLE
    build.scale_rates(session.stepper.optimizer, factor)
    try:
        return step_at_rates(session).loss
    except Diverged:
        if not number:
            raise
        return math.inf
    finally:
        session.stepper.forget()  # a next batch that was started is not the one that comes next


def _take(session: Session, rate: float) -> None:
    """Gives the session the learning rate ``rate``; the other rates keep their shares of it."""
    old = session.settings
    factor = rate / old.optimizer.learning_rate
    others = {key: min(old[key] * factor, SPECS[key].high or math.inf) for key in _OTHER_RATES}
    session.settings = old.changed(learning_rate=rate, **others)
    build.change_rates(session.stepper.optimizer, session.settings.optimizer)
