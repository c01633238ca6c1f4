"""Captions of many pictures in one file, and the ``.json`` beside a picture: from bytes to texts by file name.

``metadata.jsonl`` and ``metadata.csv`` are as Hugging Face's ImageFolder defines them: ``file_name`` and ``text``, or
another of the names below. ``meta_cap.json`` and its kin are what sd-scripts' ``finetune`` tools write: an object whose
keys are pictures, without their ending or as whole paths, each with ``caption``, ``tags`` or both.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from lora_studio.dataset import captions
from lora_studio.language import tr

JSONL, CSV = "metadata.jsonl", "metadata.csv"
TABLES = (JSONL, CSV, "meta_lat.json", "meta_clean.json", "meta_cap_dd.json", "meta_dd.json", "meta_cap.json")
"""Names of the files that hold captions of many pictures; of two in one folder, the first has precedence. sd-scripts
makes each of its own from those that follow.
"""
MAX_BYTES = 64 * 1024 * 1024
MAX_JSON_BYTES = 1024 * 1024
"""A longer file is not the ``.json`` of one picture."""

NAMES = ("file_name", "filename", "image")
"""The key or column of a picture's name in a ``metadata`` table; the first one found is used."""
TEXTS = ("text", "caption", "prompt", "tags")
"""The key or column of the caption in a ``metadata`` table; the first one found is used."""
OBJECT_TEXTS = ("caption", "text", "prompt", "captions")
"""The key of the caption in a picture's ``.json`` and in sd-scripts' tables; the first one that holds text is used."""
_DELIMITERS = (",", ";", "\t")


class Table(NamedTuple):
    """What a table says: captions by file name (relative, with ``/``), and its faults, each with its place.

    A name that begins with ``/`` was a whole path, in a table of sd-scripts; names may lack their ending.
    """

    captions: dict[str, str]
    faults: list[str]


def read(name: str, data: bytes) -> Table:
    """The table ``name``, one of ``TABLES``. What is invalid is skipped; of two captions for one file the first
    counts.
    """
    if name == JSONL:
        entries = _jsonl(data)
    elif name == CSV:
        entries = _csv(data)
    else:
        entries = _sd_scripts(data)
    found: dict[str, str] = {}
    faults: list[str] = []
    for number, entry in entries:
        try:
            if isinstance(entry, str):
                raise ValueError(entry)
            key = entry_name(name, entry[0])
            if key in found:
                raise ValueError(tr("names {key} again", key=key))
            found[key] = _tidied(entry[1])
        except ValueError as error:
            faults.append(_placed(number, _why(error), name))
    return Table(found, faults)


def _placed(number: int, fault: str, table: str) -> str:
    if not number:
        return tr("it {fault}", fault=fault)
    if table in (JSONL, CSV):
        return tr("line {number} {fault}", number=number, fault=fault)
    return tr("entry {number} {fault}", number=number, fault=fault)


def _why(error: ValueError) -> str:
    """What an error says: a message, if it was made here."""
    return error.args[0] if error.args else str(error)


def entry_name(table: str, name: str) -> str:
    """What an entry that the file ``table`` calls ``name`` is called in a ``Table``.

    Raises:
        ValueError: it names a file outside the folder.
    """
    return captions.relative_name(name) if table in (JSONL, CSV) else _any_name(name)


_Entry = tuple[str, str] | str
"""File name and text, or what is wrong."""


def _tidied(text: str) -> str:
    if len(text) > captions.MAX_BYTES:
        raise ValueError(tr("has a caption of {count} characters", count=len(text)))
    return captions.tidy_lines(text)


def _jsonl(data: bytes) -> Iterator[tuple[int, _Entry]]:
    for number, line in enumerate(captions.decode(data)[0].split("\n"), 1):
        if line.strip():
            try:
                yield number, row_of(_json(line))
            except ValueError as error:
                yield number, _why(error)


def _csv(data: bytes) -> Iterator[tuple[int, _Entry]]:
    text = captions.decode(data)[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter(text))
    try:
        columns = [column.strip().casefold() for column in next(rows, [])]
        if not set(columns) & set(NAMES) or not set(columns) & set(TEXTS):
            yield 1, tr("has no columns file_name and text")
            return
        for row in rows:
            if len(row) > len(columns):
                yield rows.line_num, tr("has more fields than the first line: a text with commas must be in quotes")
            elif any(cell.strip() for cell in row):
                try:
                    yield rows.line_num, row_of(dict(zip(columns, row, strict=False)))
                except ValueError as error:
                    yield rows.line_num, _why(error)
    except csv.Error as error:
        yield rows.line_num, tr("and all that follow are not CSV ({error})", error=error)


def delimiter(text: str) -> str:
    """What separates the fields of a CSV, by its first line."""
    return max(_DELIMITERS, key=text.split("\n", 1)[0].count)


def row_of(entry: Any) -> tuple[str, str]:
    """File name and caption of an entry in a ``metadata`` table.

    Raises:
        ValueError: it has none.
    """
    if not isinstance(entry, dict):
        raise ValueError(tr("is not a JSON object"))
    name, text = (next((entry[key] for key in keys if key in entry), None) for keys in (NAMES, TEXTS))
    if not isinstance(name, str) or not name:
        raise ValueError(tr("has no file_name"))
    if not isinstance(text, str):
        raise ValueError(tr("has no text"))
    return name, text


def _sd_scripts(data: bytes) -> Iterator[tuple[int, _Entry]]:
    try:
        table = _json(captions.decode(data)[0])
        if not isinstance(table, dict):
            raise ValueError(tr("is not a JSON object"))
    except ValueError as error:
        yield 0, _why(error)
        return
    for number, (name, entry) in enumerate(table.items(), 1):
        try:
            yield number, (name, _of_object(entry))
        except ValueError as error:
            yield number, tr("({name}) {fault}", name=name[:60], fault=_why(error))


def of_picture(data: bytes) -> str:
    """The caption in the ``.json`` beside a picture: an object with ``caption``, ``text``, ``prompt`` or ``captions``,
    a text or a list of variants, with ``tags`` after each, as in sd-scripts' tables; or a text or a list of variants
    alone.

    Raises:
        ValueError: it holds no caption.
    """
    return _tidied(_of_object(_json(captions.decode(data)[0])))


def _of_object(entry: Any) -> str:
    if not isinstance(entry, dict):
        lines, tags = strings(entry), []
    else:
        lines = next((found for key in OBJECT_TEXTS if (found := strings(entry.get(key)))), [])
        tags = strings(entry.get("tags"))
    after = captions.tidy(", ".join(tags))
    texts = [line for text in lines for line in captions.tidy_lines(text).split("\n") if line]
    if not texts and not after:
        raise ValueError(tr("has no caption, text or tags"))
    return "\n".join(f"{text}, {after}" if after else text for text in texts) or after


def strings(value: Any) -> list[str]:
    """The texts in a value: one, a list of them, or an object of them."""
    values = [value] if isinstance(value, str) else list(value.values()) if isinstance(value, Mapping) else value
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        return []
    return [text for text in values if text.strip()]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(tr("is not JSON")) from None


def _any_name(name: str) -> str:
    """As ``captions.relative_name``, but a whole path keeps its names, without a drive."""
    drive = PureWindowsPath(name).drive
    path = PurePosixPath(name.replace("\\", "/").removeprefix(drive.replace("\\", "/")))
    if drive or path.is_absolute():
        return f"/{captions.relative_name(str(path).lstrip('/'))}"
    return captions.relative_name(name)
