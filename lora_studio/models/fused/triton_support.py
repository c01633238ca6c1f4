"""Whether Triton's kernels work on this machine. They need a GPU and the triton package, and on Linux a C compiler and
Python's headers before the first launch (``bootstrap.triton``).
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

from lora_studio.bootstrap import triton as requirements
from lora_studio.language import in_sequence, tr

GAIN = tr(
    "With them a step of Stable Diffusion 1.5 took 39 % less time and 0.7 GB less memory, and one of SDXL 20 % less "
    "time, on an NVIDIA H200."
)
"""What the kernels bring: 41.5 ms became 25.5 at batch 4, and 69.7 ms became 55.7 at batch 1."""


class Fallback(NamedTuple):
    """What to tell where the kernels do not work, as events and findings have it."""

    what: str
    do: str


def kernels() -> Any:
    """The module ``fused.kernels``, or None where they do not work."""
    return _probe()[0]


def reason() -> str:
    """Why they do not work, for people; empty where they do."""
    return _probe()[1]


def path() -> str:
    """What computes between a GPU's matrix products, for people."""
    return tr("plain operations") if reason() else tr("fused kernels")


def fallback() -> Fallback | None:
    """That a GPU takes plain operations, why, and what the kernels would bring; None where they work."""
    if not (why := reason()):
        return None
    need = requirements.lacking(Path(sys.prefix)) or tr("They need PyTorch's triton package.")
    what = tr("Plain operations take the place of the fused kernels: {why}.", why=why)
    return Fallback(what, in_sequence([GAIN, need]))


def compiles() -> bool:
    """Whether kernels are compiled for this machine for the first time, which takes seconds, and is kept."""
    return not reason() and _compiled_here


@cache
def _probe() -> tuple[ModuleType | None, str]:
    if not torch.cuda.is_available():
        return None, tr("there is no GPU for Triton")
    try:
        from lora_studio.models.fused import kernels as found
    except (ImportError, OSError, RuntimeError) as error:
        return None, tr("Triton cannot be imported ({error})", error=error)
    try:
        _prepare()
        found.add(*(torch.zeros(shape, device="cuda") for shape in ((1, 1, 1, 1), (1, 1, 1, 1), (1,))))
    except (
        Exception
    ) as error:  # a missing compiler, header or driver raises whatever it likes: each means the same here
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return None, tr("Triton cannot compile ({error})", error=lines[-1][:200])
    return found, ""


_compiled_here = False


def _prepare() -> None:
    """Has Triton use our compiler where the system has none, and tell what it compiles."""
    try:
        from triton import knobs
    except ImportError:  # a version of the user's own that has none: it compiles as it always did
        return
    if not requirements.complete():
        knobs.build.impl = requirements.build
    knobs.compilation.listener = _listen


def _listen(*, cache_hit: bool, **_: object) -> None:
    global _compiled_here
    _compiled_here = _compiled_here or not cache_hit
