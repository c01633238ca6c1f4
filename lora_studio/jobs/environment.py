"""What surrounds every process that the studio starts of itself. Imports no torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CARD = {"CUBLAS_WORKSPACE_CONFIG": ":4096:2:16:8"} | (
    {"PYTORCH_ALLOC_CONF": "expandable_segments:True"} if sys.platform == "linux" else {}
)
"""For a process that trains: cuBLAS works in 8 MiB on every card, as it does by itself on smaller ones, instead of 32
for each graph; and a card's memory grows in place and leaves no gaps.
"""
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}
"""For a process that computes: threads that spin while they wait slow work on a CPU many times over beside a busy
browser. Read when torch is imported.
"""
_ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """The variables of such a process: it finds this package, asks no hub, speaks UTF-8 at once, and its idle threads
    wait.
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
