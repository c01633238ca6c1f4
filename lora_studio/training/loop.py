"""The training loop: a generator of events. It can be read aloud."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

from lora_studio.config.settings import Settings
from lora_studio.evaluation import registry as measures
from lora_studio.events import Event, Finished, Preparing, Started, State, StateChanged, StepDone, Warned
from lora_studio.language import tr
from lora_studio.models import inject
from lora_studio.models.fused import triton_support
from lora_studio.runs import Run, checkpoints
from lora_studio.training import devices, exceptions, previews, stepper
from lora_studio.training.distributed import World
from lora_studio.training.evaluations import Evaluations
from lora_studio.training.leader import Leader
from lora_studio.training.prepare import prepare
from lora_studio.training.previews import PreviewTimer
from lora_studio.training.recovery import Recovery
from lora_studio.training.requests import Requests, StoppedEarly, until_stopped
from lora_studio.training.saving import POLL, Saver
from lora_studio.training.session import Session
from lora_studio.training.train_step import Diverged, StepResult


def train(
    run: Run, settings: Settings, requests: Requests | None = None, world: World | None = None
) -> Iterator[Event]:
    """Trains to the last step, or until asked to stop, and leaves the adapter in ``run.adapter_file``. A run that is
    stopped before its first step is interrupted and leaves none.

    A run that has saved states resumes from the newest one.

    Args:
        world: the processes that share the work, of which this one is the leader.

    Raises:
        StudioError: what the user can fix; every state saved so far is intact.
    """
    with exceptions.translating(exceptions.while_training(run, settings)):
        try:
            yield from _train(run, settings, requests or Requests(), Leader(world or World()))
        except StoppedEarly:
            yield StateChanged(state=State.INTERRUPTED, asked=True)


def _train(run: Run, settings: Settings, requests: Requests, leader: Leader) -> Iterator[Event]:
    if settings.machine.deterministic:
        devices.make_repeatable()
    yield StateChanged(state=State.PREPARING)
    leader.announce(run, settings)
    early = _stopping_early(run, requests, leader.world)
    session = yield from until_stopped(prepare(run, settings, leader.world), early)
    session.stopping_early = partial(_raise_stopped, early)
    leader.start(session)
    yield from until_stopped(leader.find_rate(session), early)
    yield _started(session)
    timer, recovery, evaluations = PreviewTimer(), Recovery(session), Evaluations(session, requests)
    yield from _before_the_first_step(session, timer)
    yield from evaluations.begin()
    session.stopping_early()
    session.stopping_early = _never
    saver = Saver(session, requests)
    yield StateChanged(state=State.RUNNING)
    yield from _kernels(session)

    with requests.taking_turns():
        while not session.finished and not requests.stop():
            yield from _wait_while_paused(requests)
            if requests.stop():
                break
            try:
                result = _timed_step(session, leader)
            except Diverged as error:
                yield recovery.roll_back(leader, error)
                continue
            recovery.watch(result)
            yield from _capture_warning(session)
            yield _step_done(session, result, timer, evaluations)
            if session.finished or _due(session.step, settings.dataset.validate_every):
                yield from _measure(session)
            drawing = requests.take_preview() or (
                not session.finished and _due(session.step, settings.previews.preview_every)
            )
            if drawing:
                yield from timer.timed(previews.draw(session))
            if requests.take_save() or (not session.finished and saver.due() and not recovery.exploded):
                yield from saver.save()
            if drawing and not session.finished:
                yield from saver.keep_look()
            if evaluations.due() and not session.finished:
                yield from evaluations.judge()
            if not session.finished:
                requests.let_draw()

    leader.end()
    yield from _finish(session, saver, evaluations)


def _stopping_early(run: Run, requests: Requests, world: World) -> Callable[[], bool]:
    """Whether to end before the first step: once that is asked for, in a run that has nothing to save and no other
    process that would wait for this one.
    """
    return requests.stop if not checkpoints.listed(run) and world.size == 1 else _never


def _never() -> bool:
    return False


def _raise_stopped(stopping: Callable[[], bool]) -> bool:
    if stopping():
        raise StoppedEarly
    return False


def _timed_step(session: Session, leader: Leader) -> StepResult:
    began = time.monotonic()
    result = leader.step(session)
    session.seconds += time.monotonic() - began
    session.final_loss = result.loss
    return result


def _due(at: int, every: int) -> bool:
    return every > 0 and at % every == 0


def _started(session: Session) -> Started:
    class_images = len(session.data.class_pictures)
    return Started(
        total_steps=session.settings.run.steps,
        first_step=session.step,
        images=len(session.data.train) - class_images,
        validation_images=len(session.data.validation),
        class_images=class_images,
        pairs=len(session.data.dataset.pairs),
        device=session.world.named(session.machine.name),
        precision=session.machine.precision,
        parameters=sum(p.numel() for p in session.parameters.values()),
        modules=len(inject.layers(session.base)),
        engine=_how(session),
    )


def _how(session: Session) -> str:
    """How a GPU takes the steps, and why not in the fastest way."""
    if session.machine.device.type != "cuda":
        return ""
    settings = session.settings
    why = stepper.obstacle(settings.adapter, settings.machine, session.machine.device)
    how, path = session.stepper.how, triton_support.path()
    if why:
        return tr("{how}, since {why}, {path}", how=how, why=why, path=path)
    return tr("{how}, {path}", how=how, path=path)


def _kernels(session: Session) -> Iterator[Event]:
    """What a GPU computes with, where that takes long: the first time on a machine, or without the fused kernels."""
    if session.machine.device.type != "cuda":
        return
    if fallback := triton_support.fallback():
        yield Warned(what=fallback.what, where="device", do=fallback.do)
    elif triton_support.compiles():
        yield Preparing(stage=tr("compiling the fused kernels, once for this machine"), done=0, total=1)


def _before_the_first_step(session: Session, timer: PreviewTimer) -> Iterator[Event]:
    """What later images and losses are compared with."""
    if not session.run.preview_file(0, 0, base=True).exists():
        yield from timer.timed(previews.draw(session, base=True))
    if session.step == 0:
        yield from _measure(session)


def _capture_warning(session: Session) -> Iterator[Event]:
    """Says once that CUDA graphs do not work here."""
    if why := session.stepper.take_failure():
        yield Warned(
            what=tr("Steps could not be captured as CUDA graphs: {why}", why=why),
            where="cuda_graph",
            do=tr("Training continues without them, which is slower and gives the same result."),
        )


def _step_done(session: Session, result: StepResult, timer: PreviewTimer, evaluations: Evaluations) -> StepDone:
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
        eta=left * pace + rounds * timer.seconds + evaluations.seconds_left(),
    )


def _measure(session: Session) -> Iterator[Event]:
    if session.settings.dataset.validate_every:
        yield from measures.measured(session)


def _wait_while_paused(requests: Requests) -> Iterator[Event]:
    if not requests.paused():
        return
    yield StateChanged(state=State.PAUSED)
    while requests.paused() and not requests.stop():
        requests.let_draw()
        time.sleep(POLL)
    yield StateChanged(state=State.RUNNING)


def _finish(session: Session, saver: Saver, evaluations: Evaluations) -> Iterator[Event]:
    """The state first, from which everything else can be made; then the adapter, the last previews and judgement."""
    yield StateChanged(state=State.STOPPING)
    yield from saver.save(State.STOPPING)
    yield from saver.export()
    yield from previews.draw(session)
    yield from evaluations.last()
    yield Finished(
        adapter=session.run.relative(session.run.adapter_file),
        steps=session.step,
        seconds=session.seconds,
        final_loss=session.final_loss,
        stopped=not session.finished,
    )
