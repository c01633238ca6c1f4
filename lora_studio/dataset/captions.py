"""Captions: from bytes to text, and from ``metadata.jsonl`` to a table."""

from __future__ import annotations

import codecs
import json
import re
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath
from typing import NamedTuple

SUFFIXES = (".txt", ".caption")
"""Endings of a caption file beside its picture; the first one found is used."""
TABLE = "metadata.jsonl"
MAX_BYTES = 64 * 1024
"""A longer file is no caption: text encoders read 77 tokens."""
MAX_TABLE_BYTES = 64 * 1024 * 1024

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",  # UTF-16's mark begins UTF-32's
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Table(NamedTuple):
    """The content of a ``metadata.jsonl``: captions by file name (relative, with ``/``), and (line number, fault) of
    the other lines.
    """

    captions: dict[str, str]
    faults: list[tuple[int, str]]


def decode(data: bytes) -> tuple[str, str]:
    """The text of ``data``, and the name of its encoding if it was guessed, else "".

    UTF-8, and UTF-16 and UTF-32 with a byte order mark, need no guess.
    """
    named = next((encoding for mark, encoding in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(named)
        if "\0" not in text:
            return text, ""
    except UnicodeDecodeError:
        pass
    if b"\0" in data:  # Western text in UTF-16 without a mark: every other byte is zero
        guess = "utf-16-le" if data[1::2].count(0) > data[::2].count(0) else "utf-16-be"
        return data.decode(guess, "replace"), "UTF-16"
    try:
        return data.decode("cp1252"), "Windows Latin"
    except UnicodeDecodeError:
        return data.decode("latin-1"), "Latin-1"


def tidy_lines(text: str) -> str:
    """``text`` with each of its lines tidied, without empty ones."""
    return "\n".join(filter(None, map(tidy, re.split(r"\r\n|\r|\n", text))))


def tidy(text: str) -> str:
    """``text`` on one line, with single spaces, without control characters and lone surrogates."""
    shown = "".join(
        character for character in " ".join(text.split()) if unicodedata.category(character) not in ("Cc", "Cs")
    )
    return shown.strip().removeprefix("\ufeff").strip()


def read_table(data: bytes) -> Table:
    """The captions of a ``metadata.jsonl``: one JSON object a line, ``file_name`` and ``text`` (or ``caption``), as
    Hugging Face's ImageFolder defines it. An invalid line is skipped; of two lines for one file the first counts.
    """
    captions: dict[str, str] = {}
    faults: list[tuple[int, str]] = []
    for number, line in enumerate(decode(data)[0].split("\n"), 1):
        if not line.strip():
            continue
        try:
            name, text = _entry(line)
        except ValueError as error:
            faults.append((number, str(error)))
            continue
        if name in captions:
            faults.append((number, f"names {name} again"))
        else:
            captions[name] = text
    return Table(captions, faults)


def _entry(line: str) -> tuple[str, str]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(entry, dict):
        raise ValueError("is not a JSON object")
    name, text = entry.get("file_name"), entry.get("text", entry.get("caption"))
    if not isinstance(name, str) or not name:
        raise ValueError("has no file_name")
    if not isinstance(text, str):
        raise ValueError("has no text")
    if len(text) > MAX_BYTES:
        raise ValueError(f"has a caption of {len(text)} characters")
    return relative_name(name), tidy_lines(text)


def relative_name(name: str) -> str:
    """``name`` with forward slashes and composed Unicode.

    Raises:
        ValueError: it is absolute or leads out of the folder.
    """
    path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts:
        raise ValueError("names a file outside the folder")
    return str(path)
