"""Chooses the build of PyTorch for this machine. On Windows the package index has CPU builds only, so an NVIDIA card
needs PyTorch's own index; so do AMD's and Intel's cards, on Linux.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

INDEX = "https://download.pytorch.org/whl/"
DEFAULT = "default"
"""The package index's own build."""
ROCM, XPU = "rocm7.2", "xpu"
"""Names in that index with the pinned PyTorch."""
_AMD_NODES, _CARDS = Path("/sys/class/kfd/kfd/topology/nodes"), Path("/sys/class/drm")
_AMD_TARGETS = (90008, 90010, 90402, 100300, 110000, 110001, 110002, 120000, 120001)
"""``gfx_target_version`` of the cards that PyTorch's ROCm builds have kernels for: gfx908, 90a, 942, 1030, 1100 to
1102, 1200 and 1201. On others, most graphics of processors among them, the first kernel would end the process.
"""
_INTEL, _BUILT_IN = "0x8086", "0000:00:02.0"
"""Intel's vendor number, and the address of the graphics within its processors."""


def has_nvidia() -> bool:
    """Whether an NVIDIA driver is installed. Only looks for its files, since every start asks."""
    if os.name == "nt":
        places = [Path(os.environ.get("SystemRoot", "C:/Windows"), "System32", "nvcuda.dll")]
    else:
        places = [Path("/proc/driver/nvidia/version"), Path("/usr/lib/wsl/lib/libcuda.so.1")]
    return bool(shutil.which("nvidia-smi")) or any(place.exists() for place in places)


def has_amd() -> bool:
    """Whether Linux's driver for computing knows an AMD card that PyTorch's ROCm builds support."""
    for properties in _AMD_NODES.glob("*/properties"):
        found = dict(line.split()[:2] for line in _text(properties).splitlines() if len(line.split()) > 1)
        if found.get("gfx_target_version") in map(str, _AMD_TARGETS):
            return True
    return False


def has_intel() -> bool:
    """Whether there is a graphics card of Intel's, not only graphics within the processor. Linux only."""
    return any(
        _text(vendor).strip() == _INTEL and vendor.parent.resolve().name != _BUILT_IN
        for vendor in _CARDS.glob("card*/device/vendor")
    )


def cards() -> list[str]:
    """The makers of this machine's cards that need a build of their own."""
    found = {"nvidia": has_nvidia(), "amd": has_amd(), "intel": has_intel()}
    return [maker for maker, there in found.items() if there]


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, ValueError):
        return ""  # the system does not let it be read: as if the card were not there


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
        return ROCM if has_amd() else XPU if has_intel() else DEFAULT
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
