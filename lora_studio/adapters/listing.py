"""What the library shows of an adapter, from its header alone. Imports no torch.

Family, kind and rank come from keys and shapes; title, trigger word and date are only what the file claims.
"""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lora_studio.adapters import container, detect, foreign, keys, kinds, metadata
from lora_studio.errors import AdapterError


class Summary(BaseModel):
    """One adapter at a glance."""

    model_config = ConfigDict(frozen=True)

    path: str
    title: str
    family: str
    dialect: str
    method: str
    """Its kind, of ``kinds.KINDS``."""
    rank: int
    """The most frequent one; 0 if no module is factored."""
    mixed_ranks: bool
    alpha: float | None
    """The first module's; None if the file has none, which means scale 1."""
    modules: int
    trigger: str
    size: int
    """Bytes."""
    modified: float
    """Seconds since the epoch, of the file."""
    date: str
    """As the file claims, ISO 8601; may be empty."""
    has_thumbnail: bool


def summary(path: Path | str) -> Summary:
    """The adapter at ``path``, a file or a peft folder. A known file that has not changed costs one ``stat``.

    Raises:
        AdapterError: it is not an adapter, is a pickle, or is damaged.
    """
    path = Path(path)
    file = path / container.PEFT_MODEL if path.is_dir() else path
    try:
        stat = os.stat(file)
    except OSError:
        return _summary(path, file, 0, 0)
    return _summary(path, file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _summary(path: Path, file: Path, modified: int, size: int) -> Summary:
    table, texts, size = container.peek(file)
    shapes = {name: tuple(entry["shape"]) for name, entry in table.items()}
    modules, unknown = keys.collect(shapes)
    if not modules or (unknown and foreign.architecture(unknown, texts)) or foreign.text_alone(modules, texts):
        raise foreign.refusal(shapes, unknown, texts, path)
    try:
        ranks = Counter(detect.rank(module) for module in modules.values())
        family = detect.family_of(modules, detect.told(texts, shapes))
    except IndexError:
        raise AdapterError(
            f"{path.name} is damaged: its tensors have too few dimensions.", where=path, do="Download or copy it again."
        ) from None
    return Summary(
        path=str(path),
        title=_title(texts) or path.stem,
        family=family,
        dialect=detect.dialect(table),
        method=kinds.of(modules).name,
        rank=ranks.most_common(1)[0][0],
        mixed_ranks=len(ranks) > 1,
        alpha=_alpha(file, table, texts),
        modules=len(modules),
        trigger=metadata.trigger(texts),
        size=size,
        modified=modified / 1e9,
        date=texts.get("modelspec.date", "")[:30],
        has_thumbnail=texts.get("modelspec.thumbnail", "").startswith("data:image/"),
    )


def _title(texts: Mapping[str, str]) -> str:
    return (texts.get("modelspec.title") or texts.get("ss_output_name") or "").strip()[:200]


def _alpha(file: Path, table: Mapping[str, Any], texts: Mapping[str, str]) -> float | None:
    """The first alpha: from its bytes in the file, else from the LoraConfig in the header or beside the file."""
    for name, entry in table.items():
        if name.endswith(".alpha"):
            return _scalar(file, entry)
    try:
        beside = file.with_name("adapter_config.json")
        config = json.loads(
            texts.get("lora_adapter_metadata")
            or (beside.read_text("utf-8") if file.name == container.PEFT_MODEL else "{}")
        )
        return next((float(value) for key, value in sorted(config.items()) if key.endswith("lora_alpha")), None)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


_FORMATS = {"F64": "<d", "F32": "<f", "F16": "<e", "I64": "<q", "I32": "<i"}


def _scalar(file: Path, entry: Mapping[str, Any]) -> float | None:
    start, end = entry["data_offsets"]
    with open(file, "rb") as stream:
        head = int.from_bytes(stream.read(8), "little")
        stream.seek(8 + head + start)
        data = stream.read(min(end - start, 8))
    try:
        if entry["dtype"] == "BF16":
            return struct.unpack("<f", b"\0\0" + data)[0]
        return float(struct.unpack(_FORMATS[entry["dtype"]], data)[0])
    except (KeyError, struct.error):
        return None
