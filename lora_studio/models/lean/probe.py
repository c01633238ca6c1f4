"""Whether Triton's kernels work on this machine. They need a graphics card, the triton package and, for a first launch, a C compiler.

All of it is found out at the first question, for nothing may be compiled while a CUDA graph is recorded: ``models.load`` asks.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch


def kernels() -> ModuleType | None:
    """``lean.kernels``, or None where they do not work."""
    return _probe()[0]


def thin() -> ModuleType | None:
    """``lean.thin``, or None where its kernels do not work, or have no tensor cores to work with."""
    return _probe()[1]


def reason() -> str:
    """Why they do not work, for people; empty where they do."""
    return _probe()[2]


@cache
def _probe() -> tuple[ModuleType | None, ModuleType | None, str]:
    if not torch.cuda.is_available():
        return None, None, "there is no graphics card for Triton"
    try:
        from lora_studio.models.lean import kernels as found
    except (ImportError, OSError, RuntimeError) as error:
        return None, None, f"Triton cannot be imported ({error})"
    try:
        found.add(*(torch.zeros(shape, device="cuda") for shape in ((1, 1, 1, 1), (1, 1, 1, 1), (1,))))
        return found, _thin(), ""
    except Exception as error:  # a missing compiler, header or driver raises whatever it likes: each means the same here
        return None, None, f"Triton cannot compile ({(str(error).strip() or type(error).__name__).splitlines()[-1][:200]})"


def _thin() -> ModuleType | None:
    if torch.cuda.get_device_capability() < (8, 0):
        return None
    from lora_studio.models.lean import thin as found

    ones = torch.ones(16, 16, device="cuda", dtype=torch.bfloat16)
    middle = found.way_forth(ones, [ones], [ones], [ones.clone()], 1.0)
    right = middle[0, 0].item() == 16 and found.way_back([ones], [ones], ones, middle, 1.0)[0][0, 0].item() == 16
    return found if right else None
