"""Whether Triton's kernels work on this machine. They need a graphics card, the triton package and, for a first launch,
a C compiler.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch


def kernels() -> ModuleType | None:
    """``lean.kernels``, or None where they do not work."""
    return _probe()[0]


def reason() -> str:
    """Why they do not work, for people; empty where they do."""
    return _probe()[1]


@cache
def _probe() -> tuple[ModuleType | None, str]:
    if not torch.cuda.is_available():
        return None, "there is no graphics card for Triton"
    try:
        from lora_studio.models.fused import kernels as found
    except (ImportError, OSError, RuntimeError) as error:
        return None, f"Triton cannot be imported ({error})"
    try:
        found.add(*(torch.zeros(shape, device="cuda") for shape in ((1, 1, 1, 1), (1, 1, 1, 1), (1,))))
    except (
        Exception
    ) as error:  # a missing compiler, header or driver raises whatever it likes: each means the same here
        return (
            None,
            f"Triton cannot compile ({str(error).strip().splitlines()[-1][:200] if str(error).strip() else type(error).__name__})",
        )
    return found, ""
