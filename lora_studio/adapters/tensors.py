"""Reads and writes the tensors of safetensors files.

This does not use the library because a merge streams tensor by tensor, the same adapter must always give the same bytes
(the library shuffles the metadata), and a file must be on the disk before it counts as saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from io import BufferedReader
from pathlib import Path

import torch

from lora_studio import files
from lora_studio.adapters.container import Header, TensorEntry, read_header
from lora_studio.adapters.head import head
from lora_studio.errors import AdapterError
from lora_studio.language import tr

DTYPES = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""In the order in which the library lays them out, so that both give the same hashes."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ORDER = list(NAMES)


def read_tensor(file: BufferedReader, header: Header, name: str) -> torch.Tensor:
    """The tensor ``name`` of an open file, in the file's dtype."""
    entry = header.entries[name]
    if entry.start == entry.end:
        return torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
    buffer = bytearray(entry.end - entry.start)
    file.seek(header.data_start + entry.start)
    file.readinto(buffer)
    return torch.frombuffer(buffer, dtype=DTYPES[entry.dtype]).reshape(entry.shape)


def load(path: Path | str) -> tuple[dict[str, torch.Tensor], Header]:
    """Every tensor of the file and its header.

    Raises:
        AdapterError: the file is damaged, hostile, or contains NaN or infinity (the tensor is named).
    """
    header = read_header(path)
    with open(path, "rb") as file:
        tensors = {name: read_tensor(file, header, name) for name in header.entries}
    for name, tensor in tensors.items():
        require_finite(name, tensor, path)
    return tensors, header


def require_finite(name: str, tensor: torch.Tensor, where: object) -> None:
    """Refuses a tensor with NaN or infinity.

    Raises:
        AdapterError: ``tensor`` has one; the message has its ``name``.
    """
    values = tensor.float() if tensor.dtype.itemsize == 1 else tensor
    if values.is_floating_point() and not torch.isfinite(values).all():
        raise AdapterError(
            tr("The tensor {name} contains NaN or infinity.", name=name),
            where=where,
            do=tr(
                "Its training diverged, or it was saved in a number format with too small a range. Use "
                "an earlier saved state."
            ),
        )


def laid_out(parts: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> dict[str, TensorEntry]:
    """Places for tensors in the library's order: by dtype, widest first so that all are aligned, then by name."""
    entries, end = {}, 0
    for name, (dtype, shape) in sorted(parts.items(), key=lambda item: (_ORDER.index(item[1][0]), item[0])):
        start, end = end, end + dtype.itemsize * torch.Size(shape).numel()
        entries[name] = TensorEntry(NAMES[dtype], tuple(shape), start, end)
    return entries


def data(tensor: torch.Tensor) -> bytes:
    """The tensor's elements, little-endian, row by row."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def body(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, TensorEntry], bytes]:
    """Places and bytes of all tensors."""
    entries = laid_out({name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()})
    return entries, b"".join(data(tensors[name]) for name in entries)


def stream(
    path: Path, entries: Mapping[str, TensorEntry], metadata: Mapping[str, str], tensor: Callable[[str], torch.Tensor]
) -> Iterable[str]:
    """Writes a file tensor by tensor, with one in memory at a time; yields each name once its bytes are written.

    The file gets its name only after the last tensor; a generator that is closed earlier leaves nothing behind.
    """
    files.make_folder(path.parent)
    partial = files.partial(path)
    try:
        with open(partial, "wb") as file:
            file.write(head(entries, metadata))
            for name in entries:
                file.write(data(tensor(name)))
                yield name
        files.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
