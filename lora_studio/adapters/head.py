"""A safetensors file's header as bytes: made, and replaced in a file whose tensors stay as they are. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from lora_studio import files
from lora_studio.adapters import metadata as meta
from lora_studio.adapters.container import TensorEntry, read_header
from lora_studio.errors import AdapterError
from lora_studio.language import tr


def head(entries: Mapping[str, TensorEntry], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON of the header, padded with spaces to a multiple of 8 bytes."""
    table: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    table.update(
        {
            name: {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": (entry.start, entry.end)}
            for name, entry in entries.items()
        }
    )
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def with_hashes(entries: Mapping[str, TensorEntry], metadata: Mapping[str, str], data: bytes) -> bytes:
    """The header of a file with these tensors, whose bytes are ``data``; their hashes are added to ``metadata``."""
    own = head(entries, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    return head(entries, {**metadata, **meta.hashes(own, data)})


def relabel(source: Path, texts: Mapping[str, str], target: Path | None = None) -> None:
    """Writes the file ``source`` with ``texts`` laid over its metadata; the tensors' bytes are the same.

    Args:
        texts: an empty one removes its entry.
        target: the file to write, in one step; None rewrites ``source``, and only if a text differs.

    Raises:
        AdapterError: the file cannot be read, or its tensors are not those that its header was written for.
        OSError: the disk refuses; the old file is untouched.
    """
    found = read_header(source)
    new = {key: value for key, value in {**found.metadata, **texts}.items() if value}
    if target is None and new == found.metadata:
        return
    data = source.read_bytes()[found.data_start :]
    told = found.metadata.get("sshs_model_hash")
    if told and told != meta.hashes(b"", data)["sshs_model_hash"]:
        what = tr("{name} is damaged: its tensors are not those that were saved.", name=source.name)
        raise AdapterError(what, where=source, do=tr("Export or download it again."))
    files.write(target or source, with_hashes(found.entries, new, data) + data)
