"""Chooses the build of PyTorch for this machine. On Windows the package index has CPU builds only, so an NVIDIA card
needs PyTorch's own index.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

INDEX = "https://download.pytorch.org/whl/"
DEFAULT = "default"
"""The package index's own build."""


def has_nvidia() -> bool:
    """Whether an NVIDIA driver is installed. Only looks for its files, since every start asks."""
    if os.name == "nt":
        places = [Path(os.environ.get("SystemRoot", "C:/Windows"), "System32", "nvcuda.dll")]
    else:
        places = [Path("/proc/driver/nvidia/version"), Path("/usr/lib/wsl/lib/libcuda.so.1")]
    return bool(shutil.which("nvidia-smi")) or any(place.exists() for place in places)


def wanted() -> str:
    """The build named in ``LORA_STUDIO_TORCH``; empty if none is."""
    return os.environ.get("LORA_STUDIO_TORCH", "")


def choose() -> str:
    """``default``, or a name in PyTorch's own index.

    CUDA 13 supports compute capability 7.5 (Turing) and later, and drivers from 580 on. The CUDA 12.6 builds support
    older cards and drivers.
    """
    if wanted():
        return wanted()
    if not has_nvidia():
        return DEFAULT
    driver, capability = _driver_and_capability()
    return "cu126" if capability < 7.5 or (driver < 580 and capability < 10) else "cu130"


def _driver_and_capability() -> tuple[int, float]:
    """The driver's major version and the first card's compute capability. If nvidia-smi fails, those of a current card
    are assumed.
    """
    query = ["nvidia-smi", "--query-gpu=driver_version,compute_cap", "--format=csv,noheader"]
    try:
        driver, capability = (
            subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
            .stdout.splitlines()[0]
            .split(",")
        )
        return int(driver.split(".")[0]), float(capability)
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return 580, 8.6
