"""Entries of the cache on disk: safetensors files with a hash of their tensors, and pictures of base models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import safetensors.torch
import torch
from torch import Tensor

from lora_studio import files
from lora_studio.language import tr

PREVIEWS = "previews"
"""Folder of the previews of base models."""

_KINDS = {
    "latents": "*.safetensors",
    "masks": "*.safetensors",
    "masked": "*.safetensors",
    "text": "*.safetensors",
    PREVIEWS: "*.png",
}
"""Folders of entries, and the pattern of their names."""


def write(path: Path, entry: dict[str, Tensor]) -> None:
    """Raises MachineError where the disk refuses it."""
    try:
        files.write(path, safetensors.torch.save(entry, {"sha256": _digest(entry)}))
    except OSError as error:
        raise files.refusal(error, tr("The cache cannot be written"), path.parent) from None


def read(path: Path) -> dict[str, Tensor] | None:
    """The entry; None if it is missing or damaged in any way, so that it is encoded again."""
    try:
        data = path.read_bytes()
        entry = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return entry if header["__metadata__"]["sha256"] == _digest(entry) else None
    except Exception:
        return None


def prune(folder: Path, limit: int, keep: Iterable[Path] = ()) -> int:
    """Deletes the least recently used entries of ``folder`` until ``limit`` bytes are left, except those to ``keep``,
    and returns the bytes freed.

    Also deletes partial files of killed processes.
    """
    keep, entries, freed = set(keep), [], 0
    for kind, named in _KINDS.items():
        files.sweep(folder / kind, lives=psutil.pid_exists)
        for path in (folder / kind).glob(named):
            with suppress(OSError):  # another process prunes as well
                status = path.stat()
                entries.append((status.st_mtime_ns, status.st_size, path))
    excess = sum(size for _, size, _ in entries) - limit
    for _, size, path in sorted(entries):
        if freed >= excess:
            break
        if path not in keep:
            with suppress(OSError):
                path.unlink()
                freed += size
    return freed


def _digest(entry: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(entry.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
