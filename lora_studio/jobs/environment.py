"""The environment variables of the processes that the studio starts. Imports no torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

CARD = {"CUBLAS_WORKSPACE_CONFIG": ":4096:2:16:8"} | (
    {"PYTORCH_ALLOC_CONF": "expandable_segments:True"} if sys.platform == "linux" else {}
)
"""For a process that trains: cuBLAS takes 8 MiB on every GPU, as is its default on smaller ones, instead of 32 for each
graph; and a GPU's memory grows in place and leaves no gaps.
"""
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}
"""For a process that computes: threads that spin while they wait make work on a CPU many times slower beside a busy
browser. Read when torch is imported.
"""
_CHOSEN = re.compile(
    r"(CUDA|HIP|ROCR|HSA|ONEAPI|ZE|SYCL|NCCL|OMP|MKL|OPENBLAS|PYTORCH|TORCH\w*|TRITON|LORA_STUDIO)_\w+"
    r"|HF_HOME|HF_HUB_CACHE|HF_XET_CACHE|XDG_CACHE_HOME|TMPDIR|PYTHONPATH"
)
"""Variables that choose devices, threads and folders. Others, such as tokens, are never written into a file."""
DETACHED: dict[str, Any] = (
    {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
    if sys.platform == "win32"
    else {"start_new_session": True}
)
"""How a process is started that outlives this one."""
_ROOT = Path(__file__).resolve().parents[2]


def own() -> dict[str, str]:
    """The variables of this process that its runs are to have, also where another process starts them later."""
    return {name: value for name, value in os.environ.items() if _CHOSEN.fullmatch(name)}


def environment(variables: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """The variables of such a process: it finds this package, downloads nothing, writes UTF-8 without a buffer, and its
    idle threads sleep.

    Args:
        variables: take the place of those of this process.
    """
    given = {**os.environ, **variables}
    path = os.pathsep.join(dict.fromkeys(filter(None, [str(_ROOT), *given.get("PYTHONPATH", "").split(os.pathsep)])))
    ours = {
        "PYTHONPATH": path,
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**PATIENT, **CARD, **given, **ours}
