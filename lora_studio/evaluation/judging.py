"""Judges the saved states of a run by what they draw: the same prompts with each, measured against the training
pictures and the base model. Nothing but those is needed.

What was judged lies in the run's folder (``judgements``). A state is judged once, as long as its adapter, the base
model, pictures, prompts and sampler stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

from lora_studio.config.slices import MachineSettings
from lora_studio.evaluation import judgements, strength_sweep
from lora_studio.evaluation.advice import advise
from lora_studio.evaluation.bench import Bench, Cancelled
from lora_studio.evaluation.judgements import Judgement, JudgingPlan, folder, judged
from lora_studio.events import Event, Preparing
from lora_studio.language import english, tr
from lora_studio.models import Base
from lora_studio.runs import Run
from lora_studio.sampling import replay, shortcuts
from lora_studio.training import devices, encoding, prepare

__all__ = ["Bench", "Cancelled", "bench_of", "folder", "judge", "judged", "of_a_state"]


_STATE = "step "
"""How ``judge`` says in English that a state is judged now; its number follows."""


def judge(
    run: Run,
    prompts: Sequence[str] = (),
    seeds: int = 0,
    steps: Iterable[int] = (),
    cancelled: Callable[[], bool] = lambda: False,
    strengths: bool = False,
) -> Generator[Event | Judgement, None, None]:
    """Judges the run's states, or those of ``steps``, that were not judged yet; yields what happens, and every state's
    judgement in the order of the steps. Progress comes before those alone that are judged now.

    Args:
        prompts, seeds: without them, as the run's settings say.
        cancelled: asked before every denoising step.
        strengths: then measure at which strengths the advised state holds (``strength_sweep``).

    Raises:
        Cancelled: ``cancelled`` said so; the states that were judged are kept.
        RunError: the run has no state with an adapter, or none of a step.
        DatasetError, ModelError, MachineError: the run's pictures or base model cannot be used.
    """
    wanted = judgements.states(run, steps)
    bench = yield from bench_of(run, prompts, seeds, cancelled)
    yield from bench.prepare()
    known: list[Judgement] = []
    for done, (step, path) in enumerate(wanted.items()):
        found = bench.known(step, path)
        if found is None:
            yield Preparing(stage=tr("step {step}", step=step), done=done, total=len(wanted))
            found = bench.judge(step, path)
        known.append(found)
        yield found
        if (warned := shortcuts.warning(bench.base)) is not None:
            yield warned
    if strengths and (advice := advise(known)):
        yield from strength_sweep.measure(bench, run, advice.step)


def of_a_state(event: Event) -> bool:
    """Whether ``event`` says that a state is judged now."""
    return isinstance(event, Preparing) and english(event.stage).startswith(_STATE)


def bench_of(
    run: Run,
    prompts: Sequence[str] = (),
    seeds: int = 0,
    cancelled: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, Bench]:
    """The bench of a run, with the base model in memory. Raises as ``judge``."""
    settings = devices.settled(run.settings())
    dataset = yield from progress(prepare.pictures_of(run, settings), cancelled)
    base: Base = yield from progress(prepare.load(settings, devices.choose(settings.machine), dataset), cancelled)
    cache = yield from progress(encoding.encode(run, settings, dataset, base), cancelled)
    record(base, settings.machine)
    own = settings.evaluation
    plan = JudgingPlan.of(dataset, prompts or own.evaluation_prompts, seeds or own.evaluation_seeds)
    return Bench(settings, base, cache, dataset, plan, folder(run), cancelled)


def record(base: Base, machine: MachineSettings) -> None:
    """Has the denoising steps of judging recorded, where a run's own steps may be: not if that is switched off, nor
    with int8 layers, which search their inputs for outliers.
    """
    if machine.cuda_graph and machine.quantize != "int8":
        replay.enable(base)


def progress(
    events: Generator[Event, None, Any], cancelled: Callable[[], bool] = lambda: False
) -> Generator[Event, None, Any]:
    """Progress alone: what training warned of need not be said again."""
    while True:
        try:
            event = next(events)
        except StopIteration as done:
            return done.value
        if cancelled():
            raise Cancelled
        if isinstance(event, Preparing):
            yield event
