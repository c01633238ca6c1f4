"""Where to train, and in which number format."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from itertools import starmap
from typing import Any

import psutil
import torch

from lora_studio.config.settings import Settings
from lora_studio.config.slices import AdapterSettings, MachineSettings
from lora_studio.errors import MachineError
from lora_studio.language import both, ntr, tr
from lora_studio.methods import registry as methods
from lora_studio.optim import registry as optimizers

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Machine:
    """The device that trains and the format of the base model's weights."""

    device: torch.device
    precision: str
    """fp32, bf16 or fp16."""

    @property
    def dtype(self) -> torch.dtype:
        return _DTYPES[self.precision]

    @property
    def name(self) -> str:
        """For people: the GPU's name, or how many CPU threads."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        if self.device.type == "xpu":
            return torch.xpu.get_device_name(self.device)
        count = torch.get_num_threads()
        if self.device.type == "mps":
            return tr("Apple GPU")
        return ntr(count, "CPU, {count} thread", "CPU, {count} threads")

    @property
    def memory(self) -> int:
        """Bytes that the device has: a GPU's own, else the computer's."""
        if self.device.type == "xpu":
            return torch.xpu.get_device_properties(self.device).total_memory
        return torch.cuda.mem_get_info(self.device)[1] if self.device.type == "cuda" else psutil.virtual_memory().total

    def autocast(self) -> contextlib.AbstractContextManager:
        """Lets float32 adapters compute with a base model in a smaller format; does nothing in fp32."""
        return contextlib.nullcontext() if self.precision == "fp32" else torch.autocast(self.device.type, self.dtype)

    def copies(self, settings: AdapterSettings) -> torch.dtype | None:
        """The smaller format of the copies that an adapter computes with; None where float32 parameters compute, under
        autocast if the base model's format is smaller.
        """
        return self.dtype if self.precision != "fp32" and methods.get(settings.method).low_precision else None

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling, enabled in fp16 only, where gradients would underflow (Micikevicius et al. 2018, §3.2)."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16", init_scale=2.0**14)


def choose(settings: MachineSettings, place: int | None = None) -> Machine:
    """The machine that the settings ask for; ``auto`` is the fastest device.

    Args:
        place: the index of one of several GPUs, which becomes this process's current one.

    Raises:
        MachineError: the device is missing, or there are fewer GPUs.
    """
    kind = available(settings.device)
    if kind == "cuda" and place is not None:
        require(place + 1)
        torch.cuda.set_device(place)
    device = torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
    precision = _best_precision(kind) if settings.precision == "auto" else settings.precision
    return Machine(device, precision)


def available(device: str) -> str:
    """The kind of device that the setting ``device`` asks for; ``auto`` is the fastest. Nothing is put onto it.

    Raises:
        MachineError: it is missing.
    """
    kind = _best_device() if device == "auto" else device
    if kind == "cuda" and not torch.cuda.is_available():
        raise MachineError(
            tr("There is no CUDA GPU that PyTorch can use here."),
            where="device",
            do=tr("Set device to auto or cpu; `python3 app.py doctor` says what is missing."),
        )
    if kind == "xpu" and not torch.xpu.is_available():
        raise MachineError(
            tr("There is no Intel GPU that PyTorch can use here."),
            where="device",
            do=tr("Set device to auto or cpu; `python3 app.py doctor` says what is missing."),
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise MachineError(tr("There is no Apple GPU here."), where="device", do=tr("Set device to auto or cpu."))
    return kind


def settled(settings: Settings) -> Settings:
    """The settings with the device and precision that are chosen here, so that other processes choose the same."""
    machine = choose(settings.machine)
    return settings.changed(device=machine.device.type, precision=machine.precision)


def require(gpus: int) -> None:
    """Raises MachineError if there are fewer CUDA GPUs than ``gpus``."""
    count = torch.cuda.device_count()
    if count < gpus:
        do = (
            tr("Set gpus to {count}.", count=count)
            if count
            else tr("Set gpus to 1; `python3 app.py doctor` says what this machine has.")
        )
        what = tr("{gpus} GPUs were asked for, and PyTorch finds none here.", gpus=gpus)
        if count:
            what = tr("{gpus} GPUs were asked for, and PyTorch finds {count} here.", gpus=gpus, count=count)
        raise MachineError(what, where="gpus", do=do)


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    if torch.xpu.is_available():
        return "xpu"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _best_precision(kind: str) -> str:
    """bf16 from Ampere on and on Intel's cards; fp16 on Turing, which only emulates bf16; fp32, the safest, on CPUs and
    Apple GPUs.
    """
    if kind == "xpu":
        return "bf16"
    if kind != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"


def free(device: torch.device) -> int:
    """Bytes of a CUDA GPU's memory that this process can still allocate."""
    there, total = torch.cuda.mem_get_info(device)
    allowed = torch.cuda.get_per_process_memory_fraction(device) * total - torch.cuda.memory_reserved(device)
    return int(min(there, allowed))


_REPEATABLE = (":4096:8", ":16:8")
"""Workspace configurations with which cuBLAS is deterministic."""


def make_repeatable() -> None:
    """Makes a GPU add in the same order each time, so that the same run gives the same bits; slower. A CPU does so
    anyway.

    Attention kernels without a deterministic backward pass are switched off
    (https://docs.pytorch.org/docs/stable/notes/randomness.html).
    """
    if os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in _REPEATABLE:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = _REPEATABLE[0]  # read at the first matrix product
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)


_LOST = (
    "CUDA error",
    "HIP error",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "MPS backend error",
    "device lost",
)


_MEMORY_FULL = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What PyTorch says without a class of its own for it."""


def memory_full(error: BaseException) -> bool:
    """Whether the device or the computer had no memory left."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _MEMORY_FULL)


def lost(error: BaseException) -> bool:
    """Whether the device stopped responding: after a driver reset this process cannot use anything on it."""
    if memory_full(error) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.AcceleratorError) or any(sign in str(error) for sign in _LOST)


def device_lost(error: BaseException) -> MachineError:
    """The error for a run whose device was lost."""
    first = str(error).partition("\n")[0]
    return MachineError(
        tr("The graphics device stopped responding: {error}", error=first),
        where="device",
        do=tr(
            "Resume the run from its last saved state. If it happens again, restart the computer or update the driver."
        ),
    )


_GAINS = {
    "batch": tr("the same training in less memory"),
    "checkpointing": tr("the same training in much less memory, about a third slower"),
    "quantize": tr("the base model in a quarter of its memory"),
    "optimizer": tr("an optimizer that keeps much less in memory"),
    "tiled_vae": tr("large images are encoded and decoded in tiles"),
    "resolution": tr("or close other programs that use much memory"),
}
"""What a change of each setting means for the artist."""


def _wanted(key: str, value: Any) -> str:
    if value is True:
        return tr("{key} to on", key=key)
    return tr("{key} to {value}", key=key, value=str(value))


def out_of_memory(machine: str, settings: Settings, fitting: dict[str, Any] | None = None) -> MachineError:
    """The error for a run that ran out of memory. It suggests the change that costs the artist least, which is also in
    its ``details``, as ``changes``.

    Args:
        fitting: the change that should fit, if it could be estimated (``memory.suggest``).
    """
    changes = fitting or _smaller(settings)
    where = next(iter(changes), "resolution")
    advice = tr("Set a lower resolution, or close other programs that use much memory.")
    if changes:
        advice = tr("Set {wanted}: {gains}.", wanted=both(starmap(_wanted, changes.items())), gains=_GAINS[where])
    return MachineError(
        tr("The memory of {machine} is full.", machine=machine),
        where=where,
        do=tr("{advice} The newest saved state is kept.", advice=advice),
        details={"changes": changes},
    )


def _smaller(settings: Settings) -> dict[str, Any]:
    """The next smaller setting, the one that costs the artist least first."""
    if settings.share > 1:
        half = settings.share // 2 * settings.machine.gpus
        return {"batch": half, "accumulate": settings.optimizer.accumulate * (settings.optimizer.batch // half)}
    if settings.machine.checkpointing != "all":
        return {"checkpointing": "all"}
    if settings.machine.quantize == "none":
        return {"quantize": "nf4"}
    if change := optimizers.smaller(settings.optimizer.optimizer):
        return change
    return {"resolution": settings.dataset.resolution * 3 // 4 // 64 * 64} if settings.dataset.resolution > 512 else {}
