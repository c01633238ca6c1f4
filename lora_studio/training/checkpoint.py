"""Complete states that a run resumes from, safe against a crash at any moment.

    checkpoints/step-N/
    ├── adapter.safetensors   the adapter as it would be exported at that step
    ├── state.safetensors     every tensor of the state
    ├── state.json            everything else of it
    ├── about.json            the settings and pictures that it came from
    └── manifest.json         SHA-256 of the others, written last

Written as ``step-N.<process>.partial``, synced, given its name, read back. No pickle: tensors in safetensors, the rest
in JSON.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as save_bytes
from torch import Tensor

from lora_studio import files
from lora_studio.errors import RunError
from lora_studio.runs import Run
from lora_studio.runs.checkpoints import ABOUT, MANIFEST, complete

_ADAPTER = "adapter.safetensors"


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


def size(state: Any) -> int:
    """Bytes of the state's tensors."""
    tensors: dict[str, Tensor] = {}
    flatten(state, tensors)
    return sum(tensor.nbytes for tensor in tensors.values())


def save(
    run: Run,
    step: int,
    state: dict[str, Any],
    write_adapter: Callable[[Path], None],
    about: dict[str, Any] | None = None,
) -> Path:
    """Saves ``state`` and the adapter as the checkpoint of ``step``; an equal older one is kept as it is.

    Args:
        about: the settings and pictures that it came from, to compare with when the run goes on.

    Raises:
        DiskFull: there is no room for it. What was saved before is untouched, here and below.
        MachineError: the disk refuses it otherwise.
        RunError: it does not read back as it was written.
    """
    final = run.checkpoint(step)
    if complete(final):
        return final
    unfinished = files.partial(final)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        _fill(unfinished, state, write_adapter, about or {})
        if final.exists():
            files.remove(final)
        files.replace(unfinished, final)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise files.refusal(error, f"The checkpoint of step {step} could not be saved", final) from error
    if not complete(final):
        raise RunError(
            f"The checkpoint of step {step} does not read back as it was written.",
            where=final,
            do="Check the disk; earlier checkpoints are intact.",
        )
    return final


def _fill(folder: Path, state: dict[str, Any], write_adapter: Callable[[Path], None], about: dict[str, Any]) -> None:
    """Each file's hash is taken of what is in memory, so that reading back afterwards finds what the disk did to it."""
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(flatten(state, tensors)).encode()
    write_adapter(folder / _ADAPTER)
    hashes = {_ADAPTER: files.sha256(folder / _ADAPTER)}
    for name, data in (
        ("state.safetensors", save_bytes(tensors)),
        ("state.json", tree),
        (ABOUT, json.dumps(about, indent=1).encode()),
    ):
        files.write(folder / name, data)
        hashes[name] = hashlib.sha256(data).hexdigest()
    files.write(folder / MANIFEST, json.dumps(hashes, indent=1))


def load(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state that ``save`` was given.

    Raises:
        RunError: the checkpoint is incomplete.
    """
    if not complete(folder):
        raise RunError("The checkpoint is incomplete or damaged.", where=folder, do="Resume from another one.")
    return unflatten(
        json.loads((folder / "state.json").read_text()), load_file(folder / "state.safetensors", device=str(device))
    )
