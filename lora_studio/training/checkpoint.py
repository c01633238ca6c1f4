"""Complete states that a run resumes from, safe against a crash at any moment.

    checkpoints/step-N/
    ├── state.safetensors     every tensor of the state
    ├── state.json            everything else of it
    ├── about.json            the settings and pictures that it came from
    ├── adapter.safetensors   the adapter as it would be exported at that step; absent where it could not be
    └── manifest.json         SHA-256 of the others, written last

Written under a temporary name, synced, renamed, read back. No pickle: tensors in safetensors, the rest in JSON.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as save_bytes
from torch import Tensor

from lora_studio import files
from lora_studio.errors import RunError
from lora_studio.language import tr
from lora_studio.runs import Run
from lora_studio.runs.checkpoints import ABOUT, MANIFEST, STAR, complete

_ADAPTER = "adapter.safetensors"


def flatten(state: Any, tensors: dict[str, Tensor]) -> Any:
    """``state`` as JSON, its tensors moved into ``tensors`` (contiguous copies on the CPU) and named in their place."""
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
    """Saves ``state`` and the adapter as the checkpoint of ``step``, in place of an older one of that step.

    Args:
        write_adapter: writes the adapter to the given path, or nothing.
        about: the settings and pictures that it came from, to compare with when the run is resumed.

    Raises:
        DiskFull: there is no room for it. What was saved before is untouched, here and below.
        MachineError: the disk refuses it otherwise.
        RunError: it does not read back as it was written.
    """
    final = run.checkpoint(step)
    unfinished = files.partial(final)
    try:
        unfinished.mkdir(parents=True)
        _fill(unfinished, state, write_adapter, about or {})
        if final.exists():
            if (final / STAR).exists():
                (unfinished / STAR).touch()
            files.remove(final)
        files.replace(unfinished, final)
    except OSError as error:
        raise files.refusal(error, tr("The state of step {step} could not be saved", step=step), final) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if not complete(final):
        raise RunError(
            tr("The state of step {step} does not read back as it was written.", step=step),
            where=final,
            do=tr("Check the disk; states saved earlier are intact."),
        )
    return final


def _fill(folder: Path, state: dict[str, Any], write_adapter: Callable[[Path], None], about: dict[str, Any]) -> None:
    """The state first: it must not depend on whether the adapter can be written. Each file's hash is taken of what is
    in memory, so that reading it back finds what the disk did to it.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(flatten(state, tensors)).encode()
    hashes = {}
    for name, data in (
        ("state.safetensors", save_bytes(tensors)),
        ("state.json", tree),
        (ABOUT, json.dumps(about, indent=1).encode()),
    ):
        files.write(folder / name, data)
        hashes[name] = hashlib.sha256(data).hexdigest()
    del data, tensors
    write_adapter(folder / _ADAPTER)
    if (folder / _ADAPTER).exists():
        hashes[_ADAPTER] = files.sha256(folder / _ADAPTER)
    files.write(folder / MANIFEST, json.dumps(hashes, indent=1))


def load(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state that ``save`` was given. Its tensors are copies: none keeps the file open, which Windows could then not
    remove.

    Raises:
        RunError: the checkpoint is incomplete.
    """
    if not complete(folder):
        raise RunError(tr("The saved state is incomplete or damaged."), where=folder, do=tr("Resume from another one."))
    tree = json.loads((folder / "state.json").read_text())
    with safe_open(folder / "state.safetensors", "pt", device=str(device)) as file:
        return unflatten(tree, {name: file.get_tensor(name).clone() for name in file.keys()})
