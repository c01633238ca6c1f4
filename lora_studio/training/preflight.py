"""Will it fit? A few real steps and a preview, measured, before a long run: the run's own loop in a folder that is
thrown away.

What is encoded on the way stays in the cache, so that the run itself begins sooner.
"""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from lora_studio import files, runs
from lora_studio.config.settings import Settings
from lora_studio.errors import MachineError
from lora_studio.events import Event, PreviewReady, StepDone
from lora_studio.runs import Run
from lora_studio.training import devices, stepper
from lora_studio.training.loop import train

STEPS, RECORDED = 2, 8
"""The first step allocates what the later ones use again. Where steps are recorded, the first of each shape of batch is
not, and the second takes long.
"""


@dataclass(frozen=True)
class Measured:
    """What the trial took."""

    peak: int
    """Bytes: on a GPU the most that PyTorch reserved there, on a CPU the most that the process held, libraries and all.
    """
    step_seconds: float
    """Of the quickest step."""
    previews: bool
    """Whether a preview could be drawn."""


def measure(settings: Settings, outputs: Path) -> Generator[Event, None, Measured | None]:
    """Yields the trial's events and returns ``Measured``, or None where memory was too short. To be run in a fresh
    process: a CPU's peak is the whole process's.

    Raises:
        StudioError: as ``loop.train``, but for memory.
    """
    machine = devices.choose(settings)
    if machine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(machine.device)
    steps: list[StepDone] = []
    previews = False
    trials = runs.trials_folder(outputs)
    files.sweep(trials, lives=psutil.pid_exists)
    folder = files.partial(trials / "trial")
    try:
        run = _trial(settings, STEPS if stepper.obstacle(settings, machine) else RECORDED, folder, outputs)
        for event in train(run, run.settings()):
            if isinstance(event, StepDone):
                steps.append(event)
            previews |= isinstance(event, PreviewReady) and not event.base
            yield event
    except MachineError as error:
        if isinstance(error.__cause__, torch.OutOfMemoryError | MemoryError):
            return None
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    quickest = min(later.seconds - earlier.seconds for earlier, later in itertools.pairwise(steps))
    return Measured(peak(machine.device), quickest, previews)


def _trial(settings: Settings, steps: int, folder: Path, outputs: Path) -> Run:
    """A run of so many steps in ``folder``, whose cache is the real one's; of several GPUs' work one's part."""
    prompts = settings.previews.preview_prompts[:1] or ["a cat"]
    short = settings.changed(
        gpus=1,
        batch=settings.share,
        steps=steps,
        preview_every=0,
        preview_prompts=prompts,
        preview_steps=2,
        validate_every=0,
        checkpoint_every=0,
    )
    run = runs.create(short, folder)
    return Trial(run.folder, runs.cache_folder(outputs))


@dataclass(frozen=True)
class Trial(Run):
    """A run that lies elsewhere than its cache."""

    shared: Path

    @property
    def cache(self) -> Path:
        return self.shared


def peak(device: torch.device) -> int:
    """The most bytes that this process has held on ``device`` so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def limit(device: torch.device) -> int:
    """Bytes that ``device`` has altogether; for a CPU those of the computer."""
    return (
        torch.cuda.get_device_properties(device).total_memory
        if device.type == "cuda"
        else psutil.virtual_memory().total
    )
