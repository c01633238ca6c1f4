"""Complete states that a run resumes from, safe against a crash at any moment.

    checkpoints/step-N/
    ├── adapter.safetensors   the adapter as it would be exported at that step
    ├── state.safetensors     every tensor of the state
    ├── state.json            everything else of it
    └── manifest.json         SHA-256 of the others, written last

Written as ``step-N.partial``, synced, given its name, read back. No pickle: tensors in safetensors, the rest in JSON.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_studio import files
from lora_studio.errors import RunError
from lora_studio.runs import Run

_MANIFEST = "manifest.json"


def flatten(state: Any, tensors: dict[str, Tensor]) -> Any:
    """``state`` as JSON, its tensors moved into ``tensors`` (as contiguous copies on the CPU) and named in their place."""
    if isinstance(state, Tensor):
        key = str(len(tensors))
        tensors[key] = state.detach().to("cpu", copy=True).contiguous()
        return {"tensor": key}
    if isinstance(state, dict):
        return {"dict": [[key, flatten(value, tensors)] for key, value in state.items()]}
    if isinstance(state, (list, tuple)):
        return {type(state).__name__: [flatten(value, tensors) for value in state]}
    return {"value": state}


def unflatten(node: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of ``flatten``."""
    ((kind, value),) = node.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: unflatten(child, tensors) for key, child in value}
    if kind in ("list", "tuple"):
        items = [unflatten(child, tensors) for child in value]
        return tuple(items) if kind == "tuple" else items
    return value


def save(run: Run, step: int, state: dict[str, Any], write_adapter: Callable[[Path], None]) -> Path:
    """Saves ``state`` and the adapter as the checkpoint of ``step``; an equal older one is kept as it is.

    Raises:
        RunError: the disk refuses; what was saved before is untouched.
    """
    final = run.checkpoint(step)
    if complete(final):
        return final
    partial = final.with_name(final.name + files.PARTIAL)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _fill(partial, state, write_adapter)
        if final.exists():
            shutil.rmtree(final)
        files.replace(partial, final)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise RunError(f"The checkpoint of step {step} could not be saved: {error.strerror or error}.", where=final, do="Free space on that disk; earlier checkpoints are intact.") from error
    if not complete(final):
        raise RunError(f"The checkpoint of step {step} does not read back as it was written.", where=final, do="Check the disk; earlier checkpoints are intact.")
    return final


def _fill(folder: Path, state: dict[str, Any], write_adapter: Callable[[Path], None]) -> None:
    tensors: dict[str, Tensor] = {}
    tree = flatten(state, tensors)
    write_adapter(folder / "adapter.safetensors")
    save_file(tensors, folder / "state.safetensors")
    files.sync_file(folder / "state.safetensors")
    files.write(folder / "state.json", json.dumps(tree))
    hashes = {path.name: files.sha256(path) for path in sorted(folder.iterdir())}
    files.write(folder / _MANIFEST, json.dumps(hashes, indent=1))


def complete(folder: Path) -> bool:
    """Whether the folder holds a checkpoint whose every file is as its manifest says."""
    try:
        hashes = json.loads((folder / _MANIFEST).read_text())
        return bool(hashes) and all(files.sha256(folder / name) == digest for name, digest in hashes.items())
    except (OSError, ValueError, AttributeError):
        return False


def latest(run: Run) -> Path | None:
    """The complete checkpoint of the highest step, if there is one; damaged ones are passed over."""
    steps = [int(tail) for path in run.checkpoints.glob("step-*") if (tail := path.name.removeprefix("step-")).isdigit()]
    return next((run.checkpoint(step) for step in sorted(steps, reverse=True) if complete(run.checkpoint(step))), None)


def load(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state that ``save`` was given.

    Raises:
        RunError: the checkpoint is incomplete.
    """
    if not complete(folder):
        raise RunError("The checkpoint is incomplete or damaged.", where=folder, do="Resume from another one.")
    return unflatten(json.loads((folder / "state.json").read_text()), load_file(folder / "state.safetensors", device=str(device)))
