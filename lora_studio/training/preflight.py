"""Will it fit? Before a long run a few real steps and a preview are measured: the run's own loop, in a folder that is
deleted afterwards. What is encoded meanwhile stays in the cache, so that the run itself starts sooner.
"""

from __future__ import annotations

import itertools
import shutil
import statistics
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from lora_studio import files, runs
from lora_studio.config.settings import Settings
from lora_studio.errors import MachineError
from lora_studio.events import Event, Preparing, PreviewReady, StepDone
from lora_studio.language import english
from lora_studio.runs import Run
from lora_studio.training import devices, stepper
from lora_studio.training.loop import train

STEPS, CAPTURED_STEPS = 2, 8
"""The first step allocates what the later ones use again. Where steps are captured as CUDA graphs, the first of each
shape of batch is not, and the second takes long. So many are also needed to know how long batches of prompt pairs take.
"""


@dataclass(frozen=True)
class TrialResult:
    """What the trial needed."""

    peak: int
    """Bytes: on a GPU the most that PyTorch reserved there, on a CPU the most that the process held, libraries and all.
    """
    step_seconds: float
    """Of the fastest step; of prompt pairs, each of which is drawn for longer or shorter, of the middle one."""
    previews: bool
    """Whether a preview could be drawn."""
    copies: int
    """Pictures, mirrored ones and altered copies that the run encodes or has in the cache."""
    encoding_seconds: float
    """What encoding took for those that the cache did not have."""


def measure(settings: Settings, outputs: Path) -> Generator[Event, None, TrialResult | None]:
    """Yields the trial's events and returns ``TrialResult``, or None where there was not enough memory. To be run in a
    fresh process: on a CPU the peak is the whole process's.

    Raises:
        StudioError: as ``loop.train``, except for memory.
    """
    machine = devices.choose(settings.machine)
    if machine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(machine.device)
    steps: list[StepDone] = []
    encoded: list[tuple[float, int]] = []
    previews = False
    trials = runs.trials_folder(outputs)
    files.sweep(trials, lives=psutil.pid_exists)
    folder = files.partial(trials / "trial")
    try:
        run = _trial(
            settings,
            _steps(settings, machine),
            folder,
            outputs,
        )
        for event in train(run, run.settings()):
            if isinstance(event, StepDone):
                steps.append(event)
            if isinstance(event, Preparing) and english(event.stage) == "pictures":
                encoded.append((time.monotonic(), event.total))
            previews |= isinstance(event, PreviewReady) and not event.base
            yield event
    except MachineError as error:
        if error.__cause__ and devices.memory_full(error.__cause__):
            return None
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    taken = [later.seconds - earlier.seconds for earlier, later in itertools.pairwise(steps)]
    of_a_step = statistics.median(taken) if settings.run.has_pairs else min(taken)
    (began, _), (ended, copies) = (encoded[0], encoded[-1]) if encoded else ((0.0, 0), (0.0, 0))
    return TrialResult(peak(machine.device), of_a_step, previews, copies, ended - began)


def _steps(settings: Settings, machine: devices.Machine) -> int:
    """How many steps a trial takes."""
    recorded = not stepper.obstacle(settings.adapter, settings.machine, machine.device)
    return CAPTURED_STEPS if recorded or settings.run.has_pairs else STEPS


def _trial(settings: Settings, steps: int, folder: Path, outputs: Path) -> Run:
    """A run of so many steps in ``folder`` that uses the cache of ``outputs``; with several GPUs, the share of one."""
    prompts = settings.previews.preview_prompts[:1] or ["a cat"]
    short = settings.changed(
        gpus=1,
        batch=settings.share,
        steps=steps,
        find_rate=False,
        preserve_every=1,  # else the fastest step would be one without preservation
        preview_every=0,
        evaluate_every=0,
        keep="last",
        preview_prompts=prompts,
        preview_steps=2,
        validate_every=0,
        checkpoint_every=0,
    )
    run = runs.create(short, folder)
    return TrialRun(run.folder, runs.cache_folder(outputs))


@dataclass(frozen=True)
class TrialRun(Run):
    """A run in another place than its cache."""

    shared: Path

    @property
    def cache(self) -> Path:
        return self.shared


def peak(device: torch.device) -> int:
    """The most bytes that this process has held on ``device`` so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if device.type == "xpu":
        return torch.xpu.max_memory_reserved(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def limit(device: torch.device) -> int:
    """Bytes of memory that ``device`` has in all; for a CPU the computer's."""
    if device.type == "xpu":
        return torch.xpu.get_device_properties(device).total_memory
    return (
        torch.cuda.get_device_properties(device).total_memory
        if device.type == "cuda"
        else psutil.virtual_memory().total
    )
