"""The environment variables of the processes that the studio starts. Imports no torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

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
_ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """The variables of such a process: it finds this package, downloads nothing, writes UTF-8 without a buffer, and its
    idle threads sleep.
    """
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    ours = {
        "PYTHONPATH": path,
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**PATIENT, **CARD, **os.environ, **ours}
