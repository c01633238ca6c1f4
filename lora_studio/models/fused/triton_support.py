"""Whether Triton's kernels work on this machine. They need a GPU, the triton package and, for the first launch, a C
compiler.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import torch


def kernels() -> Any:
    """The module ``fused.kernels``, or None where they do not work."""
    return _probe()[0]


def reason() -> str:
    """Why they do not work, for people; empty where they do."""
    return _probe()[1]


@cache
def _probe() -> tuple[ModuleType | None, str]:
    if not torch.cuda.is_available():
        return None, "there is no GPU for Triton"
    try:
        from lora_studio.models.fused import kernels as found
    except (ImportError, OSError, RuntimeError) as error:
        return None, f"Triton cannot be imported ({error})"
    try:
        found.add(*(torch.zeros(shape, device="cuda") for shape in ((1, 1, 1, 1), (1, 1, 1, 1), (1,))))
    except (
        Exception
    ) as error:  # a missing compiler, header or driver raises whatever it likes: each means the same here
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return None, f"Triton cannot compile ({lines[-1][:200]})"
    return found, ""
