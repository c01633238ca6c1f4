"""The training loop: a generator of events. It can be read aloud."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from lora_studio import files
from lora_studio.config.settings import Settings
from lora_studio.errors import RunError, StudioError
from lora_studio.events import (
    CheckpointSaved,
    Event,
    Finished,
    RolledBack,
    Started,
    State,
    StateChanged,
    StepDone,
    Validated,
    Warned,
)
from lora_studio.files import DiskFull
from lora_studio.models import inject
from lora_studio.optim import build
from lora_studio.runs import Run, checkpoints
from lora_studio.training import checkpoint, devices, export, memory, previews, seeds, stepper, validation
from lora_studio.training.distributed import Command, World
from lora_studio.training.requests import Requests
from lora_studio.training.session import Session, prepare

ROLLBACKS = 3
"""Times that a run goes back by itself after a loss that is no number."""
SLOWER = 0.5
"""What each such time multiplies the learning rate by."""
POLL = 0.2
"""Seconds between two looks whether a wait is over."""


class Diverged(RunError):
    """Loss or gradient of a step is not a number; the weights are as before that step."""


class Result(NamedTuple):
    """One optimizer step: mean loss, norm of the gradient before clipping, learning rate."""

    loss: float
    gradient_norm: float
    learning_rate: float


def train(
    run: Run, settings: Settings, requests: Requests | None = None, ranks: World | None = None
) -> Iterator[Event]:
    """Trains to the last step, or until asked to stop, and leaves the adapter in ``run.adapter_file``.

    A run that has a checkpoint goes on from its newest one.

    Args:
        ranks: the processes that it shares the work with, and leads.

    Raises:
        StudioError: what the user can mend; every checkpoint saved so far is intact.
    """
    with in_words(run, settings):
        yield from _train(run, settings, requests or Requests(), ranks or World())


@contextmanager
def in_words(run: Run, settings: Settings) -> Iterator[None]:
    """Tells what libraries raise within it as StudioErrors."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        machine = devices.choose(settings)
        raise devices.out_of_memory(
            machine.name, settings, memory.suggest(settings, machine.precision, machine.memory)
        ) from error
    except RuntimeError as error:
        if devices.lost(error):
            raise devices.device_lost(error) from error
        raise
    except OSError as error:
        raise files.refusal(error, "The run cannot go on", Path(error.filename or run.folder)) from error


def _train(run: Run, settings: Settings, requests: Requests, ranks: World) -> Iterator[Event]:
    if settings.machine.deterministic:
        devices.make_repeatable()
    yield StateChanged(state=State.PREPARING)
    if ranks.world > 1:
        ranks.share((run.name, devices.settled(settings)))
    session = yield from prepare(run, settings, ranks)
    ranks.give(session.state())
    yield _started(session)
    clock, good = previews.PreviewTimer(), _copy(session)
    if not run.preview_file(0, 0, base=True).exists():
        yield from clock.timed(previews.draw(session, base=True))
    if session.step == 0:
        yield from _validate(session)
    session.saved, told = time.monotonic(), False
    yield StateChanged(state=State.RUNNING)

    while session.step < settings.run.steps and not requests.stop():
        yield from _wait_while_paused(requests)
        if requests.stop():
            break
        began = time.monotonic()
        ranks.tell(Command.STEP)
        try:
            result = train_step(session)
        except Diverged as error:
            yield _roll_back(session, good, error)
            ranks.give(session.state())
            continue
        session.seconds += time.monotonic() - began
        session.step += 1
        session.final_loss = result.loss
        if session.stepper.failed and not told:
            told = True
            yield Warned(
                what=f"Steps could not be recorded as a CUDA graph: {session.stepper.failed}",
                where="cuda_graph",
                do="The run goes on step by step, which is slower and gives the same result.",
            )
        yield _step_done(session, result, clock)
        last = session.step == settings.run.steps
        if _due(session.step, settings.dataset.validate_every) or last:
            yield from _validate(session)
        if requests.take_preview() or (_due(session.step, settings.previews.preview_every) and not last):
            yield from clock.timed(previews.draw(session))
        if requests.take_save() or (_save_is_due(session) and not last):
            yield from _save(session, requests)

    ranks.tell(Command.END)
    yield from _finish(session, requests, stopped=session.step < settings.run.steps)


def train_step(session: Session) -> Result:
    """One optimizer step over ``accumulate`` batches. Everything random in it is a function of (seed, step).

    Raises:
        Diverged: loss or gradient is not a number; the weights are as before the step.
    """
    settings = session.settings
    torch.manual_seed(
        seeds.seed_of(settings.run.seed, seeds.DROPOUT, session.step, *session.ranks.stream)
    )  # adapter dropout is all that draws from the global generator
    rate = build.set_rate(
        session.stepper.optimizer, settings.optimizer, session.step, settings.run.steps, session.rate_factor
    )
    first = session.step * settings.optimizer.accumulate
    following = first + settings.optimizer.accumulate
    for number in range(first, following):
        if number > first or not session.stepper.ahead:
            session.stepper.backward(session.batches.take(number))
        session.batches.prepare(number + 1)
    goes_on = session.stepper.goes_ahead and session.step + 1 < settings.run.steps
    loss, norm = session.stepper.update(session.batches.take(following) if goes_on else None)
    _require_finite(session, loss, norm)
    session.average.update()
    return Result(loss, norm, rate)


def _require_finite(session: Session, loss: float, norm: float) -> None:
    """In fp16 an infinite gradient only means that the loss was scaled too far: the scaler passes that step over by
    itself.
    """
    if math.isfinite(loss) and (math.isfinite(norm) or session.stepper.scaler.is_enabled()):
        return
    raise Diverged(
        f"The {'gradient' if math.isfinite(loss) else 'loss'} of step {session.step + 1} is not a number.",
        where="learning_rate",
        do=f"Train with a lower learning rate, for example {session.settings.optimizer.learning_rate / 10:.1e}. Nothing broken was saved.",
    )


def _copy(session: Session) -> dict:
    """The state as it is now, to go back to while no checkpoint has been saved. It lies beside the card: that may be
    full.
    """
    tensors: dict[str, torch.Tensor] = {}
    return checkpoint.unflatten(checkpoint.flatten(session.state(), tensors), tensors)


def _roll_back(session: Session, first: dict, error: Diverged) -> RolledBack:
    """Puts the last good state back and lowers the rate, a few times; then gives up.

    Raises:
        Diverged: it has been tried ``ROLLBACKS`` times.
    """
    if session.rollbacks >= ROLLBACKS:
        raise error
    failed, factor, count = session.step + 1, session.rate_factor * SLOWER, session.rollbacks + 1
    newest = checkpoints.latest(session.run)
    session.restore(checkpoint.load(newest, session.machine.device) if newest else copy.deepcopy(first))
    session.rate_factor, session.rollbacks = factor, count
    what = f"{error.what} Training went back to step {session.step} and goes on at {factor:g} × the learning rate ({count} of {ROLLBACKS} tries)."
    return RolledBack(step=session.step, failed_step=failed, factor=factor, what=what)


def _due(at: int, every: int) -> bool:
    return every > 0 and at % every == 0


def _save_is_due(session: Session) -> bool:
    """By steps or by minutes, whichever comes first: a slow machine loses no more time to a crash than a fast one."""
    minutes = session.settings.saving.checkpoint_minutes
    return (
        _due(session.step, session.settings.saving.checkpoint_every)
        or bool(minutes)
        and time.monotonic() - session.saved >= 60 * minutes
    )


def _started(session: Session) -> Started:
    return Started(
        total_steps=session.settings.run.steps,
        first_step=session.step,
        images=len(session.train),
        validation_images=len(session.validation),
        device=session.ranks.named(session.machine.name),
        precision=session.machine.precision,
        parameters=sum(p.numel() for p in session.parameters.values()),
        modules=len(inject.layers(session.base)),
        engine=_engine(session),
    )


def _engine(session: Session) -> str:
    if session.machine.device.type != "cuda":
        return ""
    why = stepper.obstacle(session.settings, session.machine)
    return session.stepper.how + (f", since {why}" if why else "")


def _step_done(session: Session, result: Result, clock: previews.PreviewTimer) -> StepDone:
    settings = session.settings
    pace = session.seconds / session.step
    left = settings.run.steps - session.step
    rounds = left // settings.previews.preview_every if settings.previews.preview_every else 1
    return StepDone(
        step=session.step,
        loss=result.loss,
        learning_rate=result.learning_rate,
        gradient_norm=result.gradient_norm,
        seconds=session.seconds,
        images_per_second=settings.optimizer.batch * settings.optimizer.accumulate / pace,
        eta=left * pace + rounds * clock.seconds,
    )


def _validate(session: Session) -> Iterator[Event]:
    if session.validation and session.settings.dataset.validate_every:
        yield Validated(step=session.step, loss=validation.loss(session))


def _wait_while_paused(requests: Requests) -> Iterator[Event]:
    if not requests.paused():
        return
    yield StateChanged(state=State.PAUSED)
    while requests.paused() and not requests.stop():
        time.sleep(POLL)
    yield StateChanged(state=State.RUNNING)


def _save(session: Session, requests: Requests) -> Iterator[Event]:
    """A checkpoint, and none that need not be kept. While the disk is full the run waits: what it learned since the
    last one lies in memory alone.
    """
    while True:
        try:
            yield from _checkpoint(session)
            return
        except DiskFull as error:
            yield from _wait_for_room(session, requests, error, State.RUNNING)
            if requests.stop():
                return
        except StudioError as error:  # earlier ones are intact, and training may yet end well
            yield _warned(error)
            return


def _checkpoint(session: Session) -> Iterator[Event]:
    began, settings, run = time.monotonic(), session.settings, session.run

    def write_adapter(path: Path) -> None:
        export.write(session, path)

    path = checkpoint.save(run, session.step, session.state(), write_adapter, session.about())
    checkpoints.prune(run, settings.saving.keep_checkpoints, settings.saving.keep_every)
    session.saved = time.monotonic()
    yield CheckpointSaved(step=session.step, path=run.relative(path), seconds=session.saved - began)


def _warned(error: StudioError) -> Warned:
    return Warned(what=error.what, where=error.where, do=error.do)


def _wait_for_room(session: Session, requests: Requests, error: DiskFull, afterwards: State) -> Iterator[Event]:
    """Paused until there is room for the state, the user lets the run go on to try again, or stops it."""
    yield Warned(
        what=error.what, where=error.where, do=f"{error.do} The run goes on by itself as soon as there is room."
    )
    yield StateChanged(state=State.PAUSED)
    requests.pause()
    needed = 2 * checkpoint.size(session.state())
    while True:
        time.sleep(POLL)
        if requests.stop() or not requests.paused() or files.room(session.run.folder) >= needed:
            break
    requests.go_on()
    yield StateChanged(state=afterwards)


def _finish(session: Session, requests: Requests, stopped: bool) -> Iterator[Event]:
    """Adapter first, since it is what the run was for; then the state to go on from, then the last previews."""
    yield StateChanged(state=State.STOPPING)
    residual = yield from _export(session, requests)
    if residual:
        yield Warned(
            what=f"The DoRA was written as a plain LoRA of rank {2 * session.settings.adapter.rank}, which holds its change to within {residual:.1%}.",
            where=session.run.adapter_file.name,
            do="Every program reads it alike. A higher rank comes closer.",
        )
    try:
        yield from _checkpoint(session)
    except StudioError as error:
        yield _warned(error)
    yield from previews.draw(session)
    yield Finished(
        adapter=session.run.relative(session.run.adapter_file),
        steps=session.step,
        seconds=session.seconds,
        final_loss=session.final_loss,
        stopped=stopped,
    )


def _export(session: Session, requests: Requests) -> Iterator[Event]:
    """Writes the adapter; on a full disk it waits for room. Asked to stop while it waits, it gives up.

    Raises:
        DiskFull: it gave up.
        MachineError: the disk refuses it otherwise.
    """
    while True:
        try:
            return export.write(session, session.run.adapter_file)
        except OSError as error:
            refused = files.refusal(error, "The adapter could not be written", session.run.adapter_file)
        if not isinstance(refused, DiskFull):
            raise refused
        requests.take_stop()
        yield from _wait_for_room(session, requests, refused, State.STOPPING)
        if requests.stop():
            raise refused
