"""``doctor``: what is installed, which devices there are, what is wrong and how to fix it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lora_studio import __version__, bootstrap, runs, starter
from lora_studio.bootstrap import environment, torch_build
from lora_studio.cli.options import AsJson, Outputs, tell
from lora_studio.optim import registry as optimizers


class Finding(NamedTuple):
    """The result of one check. ``state`` is "ok", "warning" or "problem"; a problem prevents training."""

    state: str
    what: str
    detail: str
    do: str = ""


def doctor(outputs: Outputs = runs.OUTPUTS, as_json: AsJson = False) -> int:
    """Show what is installed, which devices there are, and what is wrong."""
    findings = [finding for check in CHECKS for finding in check(outputs)]
    broken = any(finding.state == "problem" for finding in findings)
    lines = [line for finding in findings for line in _lines(finding)]
    tell({"able_to_train": not broken, "findings": [finding._asdict() for finding in findings]}, lines, as_json)
    return 2 if broken else 0


def _lines(finding: Finding) -> Iterator[str]:
    mark = {"ok": "ok      ", "warning": "warning ", "problem": "PROBLEM "}[finding.state]
    yield f"{mark}{finding.what}: {finding.detail}"
    if finding.do:
        yield f"        {finding.do}"


def _python(_: Path) -> Iterator[Finding]:
    yield Finding(
        "ok",
        "LoRA Studio",
        f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
    )
    ours = environment.Environment(bootstrap.ROOT)
    yield Finding(
        "ok", "environment", str(ours.folder) if ours.is_current() else f"{sys.prefix} (not the studio's own)"
    )


def _packages(_: Path) -> Iterator[Finding]:
    wrong = []
    pins = environment.pins(bootstrap.ROOT / "requirements.txt")
    for name, version in pins.items():
        try:
            found = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            yield Finding(
                "problem",
                name,
                "is not installed",
                "Start app.py without LORA_STUDIO_NO_VENV, or install requirements.txt.",
            )
            continue
        if found != version:
            wrong.append(f"{name} {found} instead of {version}")
    if wrong:
        yield Finding(
            "warning",
            "packages",
            "; ".join(wrong),
            "Versions other than those in requirements.txt may work, but are not tested.",
        )
    else:
        yield Finding("ok", "packages", f"all {len(pins)} are the tested versions")


def _torch(_: Path) -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding(
            "problem", "PyTorch", f"does not start: {error}", "Delete the .venv folder and start app.py again."
        )
        return
    yield Finding(
        "ok", "PyTorch", f"{torch.__version__}" + "".join(f", {name} {number}" for name, number in _toolkits(torch))
    )
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        yield Finding("ok", "device", f"cuda: {card.name}, {card.total_memory / 2**30:.1f} GB")
    if torch.backends.mps.is_available():
        yield Finding("ok", "device", "mps: Apple GPU, which shares the computer's memory")
    for index in range(torch.xpu.device_count()):
        card = torch.xpu.get_device_properties(index)
        size = f"{card.total_memory / 2**30:.1f} GB"
        yield Finding("ok", "device", f"xpu: {card.name}, {size}; without fused kernels and graphs. Not tested.")
    for maker, works in (("amd", torch.cuda.is_available()), ("intel", torch.xpu.is_available())):
        if maker in torch_build.cards() and not works:
            build = {"amd": torch_build.ROCM, "intel": torch_build.XPU}[maker]
            do = f"Set LORA_STUDIO_TORCH={build} and start app.py again. If that is so already, update the driver."
            yield Finding("warning", {"amd": "AMD", "intel": "Intel"}[maker], "PyTorch does not use the card", do)
    if torch_build.has_nvidia() and not torch.cuda.is_available():
        do = (
            "Update the NVIDIA driver (580 or newer)."
            if torch.version.cuda
            else "Set LORA_STUDIO_TORCH=cu130 and start app.py again."
        )
        yield Finding("warning", "NVIDIA", "a driver is installed, but PyTorch finds no GPU", do)
    yield Finding(
        "ok",
        "device",
        f"cpu: {platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
    )


def _toolkits(torch: Any) -> list[tuple[str, str]]:
    """What PyTorch was built for, with versions."""
    found = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip, "XPU": getattr(torch.version, "xpu", None)}
    return [(name, number) for name, number in found.items() if number]


def _bitsandbytes(_: Path) -> Iterator[Finding]:
    try:
        import torch

        from lora_studio import libraries

        AdamW8bit = libraries.bitsandbytes().optim.AdamW8bit
        weight = torch.nn.Parameter(torch.ones(4096, device="cuda" if torch.cuda.is_available() else "cpu"))
        weight.grad = torch.ones_like(weight)
        AdamW8bit([weight], lr=0.1, min_8bit_size=1).step()
        if torch.equal(weight, torch.ones_like(weight)):
            raise RuntimeError("its step changed nothing")
        yield Finding("ok", "bitsandbytes", "8-bit AdamW works")
    except Exception as error:  # a native library: whatever it raises, training works without it
        needing = ", ".join(row.name for row in optimizers.OPTIMIZERS.values() if row.package == "bitsandbytes")
        yield Finding(
            "warning",
            "bitsandbytes",
            f"does not work: {error}",
            f"Training works without it; do not choose the optimizers {needing}, nor quantize.",
        )


def _kernels(_: Path) -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError):  # reported by _torch
        return
    if not torch.cuda.is_available():
        return
    from lora_studio.models.fused import triton_support

    if fallback := triton_support.fallback():
        yield Finding("warning", "kernels", fallback.what, fallback.do)
    else:
        yield Finding("ok", "kernels", "the fused kernels work")


def _disk(outputs: Path) -> Iterator[Finding]:
    try:
        outputs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=outputs):
            pass
    except OSError as error:
        yield Finding(
            "problem",
            "outputs",
            f"{outputs} cannot be written: {error.strerror}",
            "Choose another folder with --outputs.",
        )
        return
    free = shutil.disk_usage(outputs).free / 1e9
    state, do = ("ok", "") if free > 5 else ("warning", "Runs on large models need several GB. Free some space.")
    yield Finding(state, "outputs", f"{outputs}, {free:.0f} GB free", do)


def _starter(_: Path) -> Iterator[Finding]:
    parts = ["model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler"]
    missing = [part for part in parts if not (starter.MODEL / part).exists()]
    if missing:
        what = f"its {', '.join(missing)} are missing in {starter.MODEL}"
        yield Finding("warning", "starter", what, "Download the studio again, or train on a model of your own.")
    else:
        styles = ", ".join(path.name for path in starter.sample_styles())
        yield Finding("ok", "starter", f"the built-in base model, and the sample styles {styles}")


def _chromium(_: Path) -> Iterator[Finding]:
    from lora_studio.cli import chromium

    found = chromium.installed()
    yield Finding(
        "ok",
        "chromium",
        f"{found} (for tests only)" if found else "none (only tests need one; python3 app.py test installs it)",
    )


CHECKS: list[Callable[[Path], Iterator[Finding]]] = [
    _python,
    _packages,
    _torch,
    _bitsandbytes,
    _kernels,
    _disk,
    _starter,
    _chromium,
]
"""The checks, in the order shown. Each takes the outputs folder."""
