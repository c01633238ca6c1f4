"""One optimizer step of a run."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from lora_studio.errors import RunError
from lora_studio.language import tr
from lora_studio.optim import build
from lora_studio.optim import registry as optimizers
from lora_studio.training import seeds
from lora_studio.training.session import Session


class Diverged(RunError):
    """Loss or gradient of a step is NaN or infinite; the weights are as before that step."""


class NothingLearned(Diverged):
    """The loss was NaN or infinite before the first update: a lower learning rate gives the same loss."""


class StepResult(NamedTuple):
    """Of one optimizer step: mean loss, norm of the gradient before clipping, learning rate."""

    loss: float
    gradient_norm: float
    learning_rate: float


def train_step(session: Session) -> StepResult:
    """One optimizer step over ``accumulate`` batches, at the scheduled learning rate. Raises as ``step_at_rates``."""
    values, steps = session.settings.optimizer, session.settings.run.steps
    build.set_rate(session.stepper.optimizer, values, session.step, steps, session.rate_factor)
    return step_at_rates(session)


def step_at_rates(session: Session) -> StepResult:
    """One optimizer step over ``accumulate`` batches, at the optimizer's present rates. Everything random in it is a
    function of (seed, step). Counting the step is left to the caller.

    Raises:
        Diverged: loss or gradient is NaN or infinite; the weights are as before the step.
    """
    settings, stepper = session.settings, session.stepper
    # adapter dropout is all that draws from the global generator
    torch.manual_seed(seeds.seed_of(settings.run.seed, seeds.DROPOUT, session.step, *session.world.stream))
    first = session.step * settings.optimizer.accumulate
    following = first + settings.optimizer.accumulate
    for number in range(first, following):
        if number > first or not stepper.next_started:
            stepper.backward(session.data.batches.take(number))
        session.data.batches.prepare(number + 1)
    continues = stepper.overlaps and session.step + 1 < settings.run.steps
    loss, norm = stepper.update(session.data.batches.take(following) if continues else None)
    _require_finite(session, loss, norm)
    session.average.update()
    return StepResult(loss, norm, stepper.optimizer.param_groups[0]["lr"])


def _require_finite(session: Session, loss: float, norm: float) -> None:
    """In fp16 an infinite gradient only means that the loss was scaled too far: the scaler skips that step."""
    if math.isfinite(loss) and (math.isfinite(norm) or session.stepper.scaler.is_enabled()):
        return
    chosen = session.settings.optimizer
    usual = optimizers.OPTIMIZERS[chosen.optimizer].learning_rate
    lower = min(usual, chosen.learning_rate * session.rate_factor / 2)
    if not session.step and not math.isfinite(loss):  # no rate has had an effect yet
        raise NothingLearned(
            tr("The loss is NaN or infinite before anything was learned."),
            where="base",
            do=tr("Choose another copy of the base model, or set precision to fp32."),
        )
    step = session.step + 1
    raise Diverged(
        tr("The gradient of step {step} is NaN or infinite.", step=step)
        if math.isfinite(loss)
        else tr("The loss of step {step} is NaN or infinite.", step=step),
        where="learning_rate",
        do=tr(
            "Train with a lower learning rate, for example {lower:.2g}. The saved states are not affected.", lower=lower
        ),
    )
