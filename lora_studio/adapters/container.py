"""The safetensors container, read as a file of unknown origin: header and bounds, without torch.

Layout (safetensors' format definition): 8 bytes little-endian length of the header, the header as JSON
``{name: {dtype, shape, data_offsets}, "__metadata__": {text: text}}``, then the tensors' bytes without a gap.
The library itself accepts repeated names and takes seconds for a header of many empty tensors, so every check that
does not need the tensors is made here, before any of their bytes is read.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pydantic_core import from_json

from lora_studio.errors import AdapterError
from lora_studio.language import tr

ITEMSIZE = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}
"""Bytes per element of the dtypes that an adapter or a checkpoint may hold."""
MAX_HEADER = 16 * 2**20
"""Bytes. The full SDXL target set needs 0.4 MB, a thumbnail some more."""
MAX_TENSORS = 50_000
PEFT_MODEL = "adapter_model.safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")


class TensorEntry(NamedTuple):
    """One tensor's dtype, shape and place: ``start`` and ``end`` count bytes from the first byte after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """A file's header."""

    entries: dict[str, TensorEntry]
    metadata: dict[str, str]
    data_start: int
    """Offset of the first tensor's bytes in the file."""
    size: int
    """Bytes of the whole file."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Each tensor's shape, by name."""
        return {name: entry.shape for name, entry in self.entries.items()}


def read_header(path: Path | str) -> Header:
    """The header of the safetensors file at ``path`` (or in a peft folder); reads no tensor.

    Raises:
        AdapterError: there is no such file, or it is a pickle, damaged, incomplete or hostile.
    """
    path = Path(path)
    path = path / PEFT_MODEL if path.is_dir() else path
    refuse_pickle_name(path)
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            return parse(_head(file, size, path), size, path)
    except OSError as error:
        raise _unreadable(path, error) from None


def peek(path: Path) -> tuple[dict[str, Any], dict[str, str], int]:
    """A quick look for a catalogue: the header's table and metadata, hardly checked, and the file's size in bytes.

    About ten times as fast as ``read_header``, which every file goes through before it is used. Safe on any file.

    Raises:
        AdapterError: it is not a safetensors file, or its size is not what its header says.
    """
    path = path / PEFT_MODEL if path.is_dir() else path
    refuse_pickle_name(path)
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            head = _head(file, size, path)
        table = from_json(head)
        metadata = table.pop("__metadata__", None) or {}
        end = max((_end(entry) for entry in table.values()), default=0)
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, AttributeError, TypeError, KeyError, IndexError):
        parse(head, size, path)  # which says what is wrong
        raise _damaged(path, tr("its header is not a table of tensors")) from None
    if end != size - 8 - len(head) or not isinstance(metadata, dict):
        raise _damaged(path, tr("it is shorter or longer than its header says"))
    return table, {key: value for key, value in metadata.items() if isinstance(value, str)}, size


def _end(entry: dict[str, Any]) -> int:
    """Where a tensor ends.

    Raises:
        TypeError, ValueError: the entry's shape, offsets or dtype are of another kind.
    """
    start, end = entry["data_offsets"]
    if not (
        _count(start)
        and _count(end)
        and type(entry["shape"]) is list
        and all(map(_count, entry["shape"]))
        and type(entry["dtype"]) is str
    ):
        raise TypeError
    return end


def _unreadable(path: Path, error: OSError) -> AdapterError:
    return AdapterError(
        tr("{name} cannot be read: {reason}.", name=path.name, reason=error.strerror or error),
        where=path,
        do=tr("Check that the file exists and that you have permission to read it."),
    )


def refuse_pickle_name(path: Path) -> None:
    """Refuses a file that is a pickle by its name, because loading a pickle can run any code.

    Raises:
        AdapterError: it is named like one.
    """
    if path.suffix.lower() in PICKLES:
        raise _pickle(path)


def _pickle(path: Path) -> AdapterError:
    return AdapterError(
        tr("{name} is a pickle, which can run code when it is loaded; it was not opened.", name=path.name),
        where=path,
        do=tr("Ask for a .safetensors file, or convert it with a tool that you trust."),
    )


def _damaged(path: Path, why: str) -> AdapterError:
    return AdapterError(
        tr("{name} is damaged: {why}.", name=path.name, why=why), where=path, do=tr("Download or copy it again.")
    )


def _head(file: BinaryIO, size: int, path: Path) -> bytes:
    """The header's JSON. Its length is checked against the file's size and our limit before it is read."""
    first = file.read(8)
    if first[:4] == b"PK\x03\x04" or (
        first[:1] == b"\x80" and first[1:2] in b"\x02\x03\x04\x05" and first[2:3] in b"\x8a}(]cX\x95"
    ):
        raise _pickle(path)
    if len(first) < 8:
        raise _damaged(path, tr("it has {size} bytes, too few for a safetensors file", size=size))
    length = int.from_bytes(first, "little")
    if length > MAX_HEADER:
        raise AdapterError(
            tr(
                "{name} is not a safetensors file that the studio opens: its header would be {length:,} "
                "bytes long (limit {max_header:,}).",
                name=path.name,
                length=length,
                max_header=MAX_HEADER,
            ),
            where=path,
            do=tr("Get the file again, from another source if need be."),
        )
    if length > size - 8:
        raise AdapterError(
            tr("{name} is an incomplete download: its header alone is longer than the file.", name=path.name),
            where=path,
            do=tr("Download it again."),
        )
    head = file.read(length)
    if head.count(b'"data_offsets"') > MAX_TENSORS:  # before Python objects are made of them
        raise _too_many(path)
    return head


def parse(head: bytes, size: int, path: Path) -> Header:
    """The checked header from its JSON ``head``, of a file of ``size`` bytes.

    Raises:
        AdapterError: it repeats a name or states a wrong size, or the tensors overlap, do not fill the file, or exceed
        it.
    """
    try:
        table = json.loads(head, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _damaged(
            path,
            tr("its header is not valid ({reason})", reason=error.args[0])
            if isinstance(error, _Repeated)
            else tr("its header is not valid JSON"),
        ) from None
    if not isinstance(table, dict):
        raise _damaged(path, tr("its header is not a table of tensors"))
    metadata = table.pop("__metadata__", None) or {}
    if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        raise _damaged(path, tr("its metadata is not a table of texts"))
    if len(table) > MAX_TENSORS:
        raise _too_many(path)
    _require_text([*table, *metadata, *metadata.values()], path)
    entries = {name: _entry(name, value, path) for name, value in table.items()}
    _check_cover(entries, size - 8 - len(head), path)
    return Header(entries, metadata, 8 + len(head), size)


class _Repeated(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise _Repeated(tr("{key!r} appears twice in it", key=twice[:100]))
    return table


def _no_constant(text: str) -> Any:
    raise ValueError(text)


def _require_text(texts: list[str], path: Path) -> None:
    """Refuses a header with lone surrogates, which JSON's escapes allow and no file or page can hold."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        bad = next(text for text in texts if any("\ud800" <= letter <= "\udfff" for letter in text))
        raise _damaged(path, tr("{text!r} in its header is not valid Unicode", text=bad[:100])) from None


def _too_many(path: Path) -> AdapterError:
    return AdapterError(
        tr(
            "{name} lists more than {max_tensors:,} tensors, which no adapter or model does.",
            name=path.name,
            max_tensors=MAX_TENSORS,
        ),
        where=path,
        do=tr("Do not trust this file."),
    )


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _entry(name: str, value: Any, path: Path) -> TensorEntry:
    """One tensor's entry, its byte range checked against its dtype and shape."""
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, tr("the entry of {key!r} is malformed", key=name[:100]))
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEMSIZE:
        raise _damaged(
            path, tr("{key!r} has the unknown number format {format!r}", key=name[:100], format=str(dtype)[:20])
        )
    if (
        not isinstance(shape, list)
        or not isinstance(offsets, list)
        or len(offsets) != 2
        or len(shape) > 8
        or not all(map(_count, shape + offsets))
    ):
        raise _damaged(path, tr("the shape or place of {key!r} is malformed", key=name[:100]))
    start, end = offsets
    if end - start != math.prod(shape) * ITEMSIZE[dtype]:
        raise _damaged(
            path,
            tr(
                "{key!r} of shape {shape} cannot fill {bytes:,} bytes",
                key=name[:100],
                shape=str(tuple(shape)),
                bytes=end - start,
            ),
        )
    return TensorEntry(dtype, tuple(shape), start, end)


def _check_cover(entries: dict[str, TensorEntry], available: int, path: Path) -> None:
    """The tensors must follow each other without gap or overlap, and fill the file."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != end:
            raise _damaged(
                path,
                tr("{key!r} overlaps the tensor before it", key=name[:100])
                if entry.start < end
                else tr("{key!r} comes after a gap", key=name[:100]),
            )
        end = entry.end
    if end > available:
        raise AdapterError(
            tr(
                "{name} is an incomplete download: {missing:,} of {total:,} bytes are missing.",
                name=path.name,
                missing=end - available,
                total=end,
            ),
            where=path,
            do=tr("Download it again."),
        )
    if end < available:
        raise _damaged(path, tr("{bytes:,} bytes follow the last tensor", bytes=available - end))
