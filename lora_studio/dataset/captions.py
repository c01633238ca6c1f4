"""Captions: from bytes to text."""

from __future__ import annotations

import codecs
import re
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from lora_studio import files
from lora_studio.dataset.problems import Problem
from lora_studio.language import tr

SUFFIXES = (".txt", ".caption", ".json")
"""Endings of a caption file beside its picture; the first one found is used."""
UNREAD = frozenset(
    (".tags", ".cap", ".captions", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".xlsx", ".ods")
)
"""Endings of files that hold captions elsewhere: one that is not read as a caption or table is named."""
MAX_BYTES = 64 * 1024
"""A longer file or text is no caption."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),  # UTF-16's mark begins UTF-32's
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class TextEncoding(NamedTuple):
    """How bytes become text: Python's name of the encoding, the byte order mark, and if it was guessed, its name for
    people, else "".
    """

    codec: str
    mark: bytes = b""
    guessed: str = ""

    def decode(self, data: bytes) -> str:
        """The text of ``data``. What is no character in a guessed UTF-16 becomes U+FFFD.

        Raises:
            UnicodeDecodeError: it is not in this encoding.
        """
        return data[len(self.mark) :].decode(self.codec, "replace" if self.guessed == "UTF-16" else "strict")


def encoding(data: bytes) -> TextEncoding:
    """The encoding of ``data``. UTF-8, and UTF-16 and UTF-32 with a byte order mark, need no guess."""
    mark, codec = next((one for one in _MARKS if data.startswith(one[0])), (b"", "utf-8"))
    marked = TextEncoding(codec, mark)
    try:
        if "\0" not in marked.decode(data):
            return marked
    except UnicodeDecodeError:
        pass  # so it is guessed below, which whoever reads the captions says
    if b"\0" in data:  # Western text in UTF-16 without a mark: every other byte is zero
        little = data[1::2].count(0) > data[::2].count(0)
        return TextEncoding("utf-16-le" if little else "utf-16-be", guessed="UTF-16")
    try:
        data.decode("cp1252")
        return TextEncoding("cp1252", guessed="Windows Latin")
    except UnicodeDecodeError:
        return TextEncoding("latin-1", guessed="Latin-1")


def decode(data: bytes) -> tuple[str, str]:
    """The text of ``data``, and the name of its encoding if it was guessed, else ""."""
    found = encoding(data)
    return found.decode(data), found.guessed


def encode(text: str, like: bytes) -> bytes:
    """``text`` in the encoding of ``like``, with its byte order mark; in UTF-8 if it would not be read again as it is
    from those bytes.
    """
    codec, mark, _ = encoding(like)
    try:
        data = mark + text.encode(codec)
    except UnicodeEncodeError:
        return text.encode()
    return data if decode(data)[0] == text else text.encode()


def tidy_lines(text: str) -> str:
    """``text`` with each of its lines tidied, without empty ones."""
    return "\n".join(filter(None, map(tidy, re.split(r"\r\n|\r|\n", text))))


def tidy(text: str) -> str:
    """``text`` on one line, with single spaces, without control characters and lone surrogates."""
    shown = " ".join(text.split())
    if not shown.isprintable():  # looking at every letter takes long
        shown = "".join(letter for letter in shown if unicodedata.category(letter) not in ("Cc", "Cs"))
    return shown.strip().removeprefix("\ufeff").strip()


def relative_name(name: str) -> str:
    """``name`` with forward slashes and composed Unicode.

    Raises:
        ValueError: it is absolute or leads out of the folder.
    """
    path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts:
        raise ValueError(tr("names a file outside the folder"))
    return str(path)


def composed(name: str) -> str:
    """A name with composed accents: file systems differ in that."""
    return unicodedata.normalize("NFC", name)


def read_bytes(path: Path, name: str, limit: int, problems: list[Problem]) -> bytes | None:
    """The content of a file that holds captions; None if it is longer than ``limit`` bytes or cannot be read, which is
    added to ``problems`` under ``name``.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        problems.append(
            Problem(
                "warning",
                "unreadable caption",
                name,
                tr("The file cannot be read: {reason}.", reason=files.reason(error)),
                tr("Check that you may read it."),
            )
        )
        return None
    if len(data) <= limit:
        return data
    problems.append(
        Problem(
            "warning",
            "unreadable caption",
            name,
            tr("The file is longer than {limit} KiB and was not read.", limit=limit // 1024),
            tr("Shorten it."),
        )
    )
    return None
