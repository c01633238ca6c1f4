"""Whether a picture can be drawn while a run trains: what both take, against what the device has.

They take turns, so that their work never meets; their models stay in memory side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import psutil
import torch

from lora_studio.config.settings import Settings
from lora_studio.errors import MachineError, StudioError
from lora_studio.language import tr
from lora_studio.models.shapes import read as read_shapes
from lora_studio.runs import Run
from lora_studio.training import devices, memory
from lora_studio.training.devices import Machine
from lora_studio.training.memory import Estimate

PROCESS = 2**29
"""Bytes that the run's process takes besides: a GPU's context, or libraries in the computer's memory. About half a GB
either way.
"""
MARGIN = 0.05
"""Share of all memory that is left free: estimates are some percent off, and the desktop's programs grow too."""


@dataclass(frozen=True)
class Drawing:
    """What is drawn, as far as that decides how much memory it takes."""

    base: str
    vae: str
    text_encoders: tuple[str, ...]
    pixels: int
    """Of one picture; 0 where the base model decides."""
    scale: float = 1.0
    """Of its sides, where a second pass draws it larger."""
    adapters: int = 0
    """Bytes of their files."""
    vae_alone: bool = False
    """Whether nothing but the VAE is loaded: a picture goes through it and back."""


def require(run: Run, drawing: Drawing, held: int, ours: int) -> None:
    """Returns where ``drawing`` fits beside ``run``. From then on this process takes no more of a GPU than is left, so
    that memory never runs out for the run.

    Args:
        held: bytes of the computer's memory that the run's process holds.
        ours: bytes of it that this process holds for models.

    Raises:
        MachineError: it does not fit, or nobody can tell; with the figures.
    """
    machine = devices.choose(Settings().machine)
    try:
        need, left = _need(drawing, machine), _left(run, machine, held, ours)
    except StudioError as error:
        what = tr("Nobody can tell whether drawing fits beside the run {name}. {what}", name=run.name, what=error.what)
        raise MachineError(what, where=error.where, do=_ADVICE) from error
    if need > left:
        raise MachineError(
            tr(
                "Drawing does not fit beside the run {name}: it takes {need:.1f} GB of {place}, and the run leaves "
                "{left:.1f} GB.",
                name=run.name,
                need=need / 2**30,
                place=_place(machine),
                left=max(0, left) / 2**30,
            ),
            where="device",
            do=_ADVICE,
        )
    if machine.device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(min(1.0, left / machine.memory), machine.device)


def alone() -> None:
    """There is no run any more: this process may take all of a GPU's memory again."""
    if torch.cuda.is_initialized():
        torch.cuda.set_per_process_memory_fraction(1.0)


def give_back() -> None:
    """Keeps of a GPU's memory only what models take."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


_ADVICE = tr("Wait for the run's end; or stop it, draw, and resume it.")


def _left(run: Run, machine: Machine, held: int, ours: int) -> int:
    """Bytes that this process may hold in all while the run grows to its peak, on the device that draws."""
    gpu = {"cuda": torch.cuda, "xpu": torch.xpu}.get(machine.device.type)
    if gpu:
        free, total = gpu.mem_get_info(machine.device)
        ours = gpu.memory_reserved(machine.device)
        held = total - free - ours
    else:
        there = psutil.virtual_memory()
        free, total = there.available, there.total
    return int(free + ours - _growth(run, machine, held) - MARGIN * total)


def _growth(run: Run, machine: Machine, held: int) -> int:
    """Bytes that the run may still come to take on the device that draws. Between two steps it holds what a step takes;
    what else is held there may belong to others.
    """
    settings = run.settings()
    theirs = devices.choose(settings.machine)
    if theirs.device.type != machine.device.type:
        return 0
    found = _estimate(run, theirs.precision, machine.memory)
    return max(found.peak + PROCESS - held, found.peak - found.step, 0)


@lru_cache(8)
def _estimate(run: Run, precision: str, limit: int) -> Estimate:
    settings = run.settings()
    shapes = read_shapes(settings.run.base, settings.run.vae, settings.run.text_encoders)
    return memory.estimate(settings, shapes, precision, limit)


@lru_cache(32)
def _need(drawing: Drawing, machine: Machine) -> int:
    """Bytes that it takes: models, and decoding one picture; denoising and encoding take less. Where a GPU has no room
    for several at once, they are drawn one by one (``sampling.generate.in_batches``).
    """
    shapes = read_shapes(drawing.base, drawing.vae, drawing.text_encoders)
    others = sum(shapes.parameters.values()) - shapes.parameters["vae"]
    models = 4 * shapes.parameters["vae"]
    if not drawing.vae_alone:
        models += memory.BYTES[machine.precision] * others + 2 * drawing.adapters
    pixels = (drawing.pixels or shapes.resolution**2) * drawing.scale**2
    return round(memory.RESERVED * (models + pixels * memory.decoded(shapes.vae)))


def _place(machine: Machine) -> str:
    shared = machine.device.type in ("cpu", "mps")
    return tr("the computer's memory") if shared else tr("the memory of {machine}", machine=machine.name)
