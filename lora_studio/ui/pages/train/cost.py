"""What a run will take and make, told before it starts: time, memory, the adapter's size, and how much is trained. What
was not measured is left out, or said to be so.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.dataset.batch_sampler import split
from lora_studio.dataset.items import Dataset
from lora_studio.errors import StudioError
from lora_studio.events import State
from lora_studio.families.layout import Shape
from lora_studio.jobs import view
from lora_studio.jobs.warm import MemoryEstimate
from lora_studio.language import number, tr
from lora_studio.methods import registry as methods
from lora_studio.methods.method import LayerShape
from lora_studio.runs import Run
from lora_studio.ui import words
from lora_studio.ui.scene.base_look import BaseLook

NUMBER = 4
"""Bytes of a number in an adapter's file, which is float32."""
_OF_PACE = (
    "base", "method", "rank", "targets", "blocks", "train_text", "resolution", "batch", "accumulate", "preserve_weight",
    "device", "gpus", "precision", "quantize", "checkpointing",
)  # fmt: skip
"""The settings that decide how long a step takes and how much memory."""
_MOST_RUNS = 12
"""The latest runs in which the time of a step is looked up."""


@dataclass(frozen=True)
class MeasuredPace:
    """What a check of the memory measured."""

    step_seconds: float
    peak: int
    """Bytes."""
    limit: int
    """Bytes that the device has."""
    fits: bool


def pace(settings: Settings) -> tuple[object, ...]:
    """The same for runs that take the same time and memory for a step, but for their pictures."""
    return tuple(str(settings[key]) for key in _OF_PACE)


def line(
    settings: Settings,
    dataset: Dataset | None,
    base: BaseLook | None,
    measured: MeasuredPace | None,
    outputs: Path,
    estimate: MemoryEstimate | None = None,
) -> str:
    """All of it as one line of HTML. What was not ``measured`` of the memory is told by ``estimate``."""
    steps = settings.run.steps
    facts = [words.counted(steps, "step"), *_seen(settings, dataset), _time(settings, measured, outputs)]
    if base:
        facts += _made(settings, base)
    facts.append(_memory(measured, estimate))
    return f'<p class="cost">{" · ".join(words.text(fact) for fact in facts)}</p>'


def _memory(measured: MeasuredPace | None, estimate: MemoryEstimate | None) -> str:
    if measured:
        peak, limit = _gigabytes(measured.peak), _gigabytes(measured.limit)
        fits = tr("{peak} of {limit} of memory", peak=peak, limit=limit)
        return fits if measured.fits else tr("{peak} of {limit} of memory: does not fit", peak=peak, limit=limit)
    if estimate is None:
        return tr("memory not checked yet")
    peak, limit = _gigabytes(estimate.peak), _gigabytes(estimate.limit)
    if estimate.peak > estimate.limit:
        return tr("about {peak} of {limit} of memory (estimate): probably does not fit", peak=peak, limit=limit)
    return tr("about {peak} of memory (estimate)", peak=peak)


def _seen(settings: Settings, dataset: Dataset | None) -> list[str]:
    """How often each picture is seen; on average, where some repeat."""
    if dataset is None or not dataset.pictures:
        return []
    train, _ = split(dataset.pictures, settings.dataset.validation_share, settings.run.seed)
    times = settings.run.steps * settings.optimizer.batch * settings.optimizer.accumulate / max(1, len(train))
    if times >= 1.5:
        return [tr("each picture {times:,.0f} times", times=times)]
    return [tr("{share:.0%} of the pictures once", share=times)]


def _time(settings: Settings, measured: MeasuredPace | None, outputs: Path) -> str:
    if measured:
        duration = words.duration(measured.step_seconds * settings.run.steps)
        return tr("about {duration}, without previews", duration=duration)
    if seconds := _seconds_a_step(settings, outputs):
        return tr("about {duration}, as an earlier run took", duration=words.duration(seconds * settings.run.steps))
    return tr("time not measured yet")


def _seconds_a_step(settings: Settings, outputs: Path) -> float:
    """As the latest run like it took, previews and all; 0 where there is none."""
    wanted = pace(settings)
    for run in runs.existing(outputs)[:_MOST_RUNS]:
        try:
            if pace(run.settings()) == wanted and (seconds := _pace_of(run, os.stat(run.events_file).st_mtime_ns)):
                return seconds
        except (StudioError, OSError):
            continue
    return 0.0


@lru_cache(maxsize=64)
def _pace_of(run: Run, modified: int) -> float:
    """Seconds of a step of a finished run, else 0. ``modified`` is of its log: a run that is at work will end."""
    seen = view.fold(run)
    end = seen.finished
    return end.seconds / end.steps if seen.state is State.FINISHED and end and end.steps else 0.0


def _made(settings: Settings, base: BaseLook) -> list[str]:
    """The adapter's size, and what is trained."""
    count = trained(settings, base)
    if not count:
        return []
    size = tr("about {size}", size=words.size(NUMBER * count))
    if not base.denoiser:
        return [size, tr("trains {count} parameters", count=_millions(count))]
    trains = tr(
        "trains {count} of {all} parameters ({share:.2g} %)",
        count=_millions(count),
        all=_millions(base.denoiser),
        share=100 * count / base.denoiser,
    )
    return [size, trains]


def trained(settings: Settings, base: BaseLook) -> int:
    """How many parameters are trained."""
    try:
        adapter = settings.adapter.of_family(base.family)
    except StudioError:
        return 0
    method = methods.get(adapter.method)
    layers = sum(
        method.parameters(adapter.at(path), _layer(path, shape))
        for path, shape in base.modules.items()
        if adapter.changes(path, base.family)
    )
    return layers + adapter.tokens * sum(base.text_widths)


def _layer(path: str, shape: Shape) -> LayerShape:
    return LayerShape(shape[1], shape[0], shape[2] if len(shape) > 2 else 1, path)


def _millions(count: int) -> str:
    """A count in millions, to two figures.

    >>> _millions(913_408), _millions(2_567_463_684), _millions(768)
    ('0.91 M', '2,567 M', '768')
    """
    if count < 1e4:
        return number(count)
    millions = count / 1e6
    digits = 0 if millions >= 100 else 1 if millions >= 10 else 2
    return f"{number(millions, f',.{digits}f')} M"


def _gigabytes(count: float) -> str:
    return f"{number(max(count / 2**30, 0.1), '.1f')} GB"
