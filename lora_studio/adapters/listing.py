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

from lora_studio.adapters import container, detect, embedding, foreign, keys, kinds, metadata
from lora_studio.errors import AdapterError
from lora_studio.families import registry
from lora_studio.families.layout import Shape
from lora_studio.language import tr


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
    """The first module's; None if the file has none, which means scale 1, or where it is no scale."""
    modules: int
    trigger: str
    words: tuple[str, ...] = ()
    """Those that it has learned vectors for."""
    size: int
    """Bytes."""
    modified: float
    """Seconds since the epoch, of the file."""
    date: str
    """As the file claims, ISO 8601; may be empty."""
    has_thumbnail: bool
    tensors_sha256: str
    """As the file claims; may be empty."""


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
    words, others = embedding.collect(shapes, texts, path)
    modules, unknown = keys.collect(others)
    if words and not others:
        return _of_words(path, words, texts, size, modified)
    if not modules or (unknown and foreign.architecture(unknown, texts)) or foreign.text_alone(modules, texts):
        raise foreign.refusal(others, unknown, texts, path)
    try:
        ranks = Counter(detect.rank(module) for module in modules.values())
        family = detect.family_of(modules, detect.told(texts, shapes))
    except IndexError:
        raise AdapterError(
            tr("{name} is damaged: its tensors have too few dimensions.", name=path.name),
            where=path,
            do=tr("Download or copy it again."),
        ) from None
    return Summary(
        family=family,
        dialect=detect.dialect(table),
        method=kinds.of(modules).name,
        rank=ranks.most_common(1)[0][0],
        mixed_ranks=len(ranks) > 1,
        alpha=None if kinds.of(modules).on_outputs else _alpha(file, table, texts),
        modules=len(modules),
        words=tuple(words),
        trigger=metadata.trigger(texts),
        **_of_header(path, texts, size, modified),
    )


def _of_header(path: Path, texts: Mapping[str, str], size: int, modified: int) -> dict[str, Any]:
    """What every summary has of the file and its header."""
    return {
        "path": str(path),
        "title": _title(texts) or path.stem,
        "size": size,
        "modified": modified / 1e9,
        "date": texts.get("modelspec.date", "")[:30],
        "has_thumbnail": texts.get("modelspec.thumbnail", "").startswith("data:image/"),
        "tensors_sha256": texts.get("sshs_model_hash", "")[:64],
    }


def _of_words(
    path: Path, words: Mapping[str, Mapping[str, Shape]], texts: Mapping[str, str], size: int, modified: int
) -> Summary:
    """A file that holds learned words alone."""
    widths = {word: {part: shape[-1] for part, shape in parts.items() if shape} for word, parts in words.items()}
    family = detect.family_of_words(embedding.shapes(widths), texts)
    if family == registry.UNKNOWN:
        what = tr("The vectors in {name} fit no text encoder of the studio's base models.", name=path.name)
        raise AdapterError(what, where=path, do=tr("Choose an embedding for Stable Diffusion 1.5, 2 or XL."))
    return Summary(
        family=family,
        dialect="kohya",
        method=kinds.EMBEDDING.name,
        rank=0,
        mixed_ranks=False,
        alpha=None,
        modules=0,
        words=tuple(words),
        trigger=metadata.trigger(texts) or ", ".join(words),
        **_of_header(path, texts, size, modified),
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
