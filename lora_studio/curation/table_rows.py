"""Changes captions in a table of many pictures and leaves every other byte of its text as it is.

Formats are those that ``dataset.caption_tables`` reads. An entry is found by the place of its text, and of that only
the caption is replaced: other keys, their order, numbers and spaces stay as they were written.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lora_studio.dataset import caption_tables, captions

_SPACE = re.compile(r"[ \t\r\n]*")
_JSON = json.JSONDecoder()


class Span(NamedTuple):
    """A part of a text, from ``start`` to before ``end``."""

    start: int
    end: int


class CaptionTable:
    """A table as text.

    Args:
        name: its file's name, one of ``caption_tables.TABLES``.

    Attributes:
        entries: where each entry is, by its name in ``caption_tables.Table``.
    """

    def __init__(self, name: str, data: bytes):
        self._name, self._data = os.path.basename(name), data
        self._text = captions.decode(data)[0]
        self._ascii = _escaped(self._text, data)
        self.entries: dict[str, Span] = {}
        for key, span in self._found():
            self.entries.setdefault(key, span)

    def raw(self, entry: str) -> str:
        """An entry as it is written."""
        start, end = self.entries[entry]
        return self._text[start:end]

    def with_captions(self, changes: Mapping[str, str]) -> bytes:
        """The table with other captions, by entry.

        Raises:
            ValueError: an entry cannot hold its caption.
        """
        return self.with_raw({entry: self.entry_with_caption(entry, text) for entry, text in changes.items()})

    def entry_with_caption(self, entry: str, caption: str) -> str:
        """An entry with another caption, as it would be written. Raises ValueError as ``with_captions``."""
        return self._with_caption(self.raw(entry), caption)

    def others(self, entry: str) -> Any:
        """What an entry says beside its caption."""
        raw = self.raw(entry)
        if self._name == caption_tables.CSV:
            row, place = self._cells(raw)
            return row[:place] + row[place + 1 :]
        found = json.loads(raw)
        texts = {*caption_tables.TEXTS, *caption_tables.OBJECT_TEXTS}
        return {key: value for key, value in found.items() if key not in texts} if isinstance(found, dict) else None

    def with_raw(self, changes: Mapping[str, str]) -> bytes:
        """The table with entries replaced as a whole."""
        parts, done = list[str](), 0
        for (start, end), raw in sorted((self.entries[entry], raw) for entry, raw in changes.items()):
            parts += [self._text[done:start], raw]
            done = end
        return captions.encode("".join([*parts, self._text[done:]]), self._data)

    def _found(self) -> Iterator[tuple[str, Span]]:
        """Name and place of each entry that ``caption_tables.read`` reads."""
        walk = {caption_tables.JSONL: self._lines, caption_tables.CSV: self._records}.get(self._name, self._members)
        for name, span in walk():
            try:
                yield caption_tables.entry_name(self._name, name), span
            except ValueError:
                continue  # it leads out of the folder, which the scan tells

    def _lines(self) -> Iterator[tuple[str, Span]]:
        start = 0
        for line in self._text.split("\n"):
            try:
                yield caption_tables.row_of(json.loads(line))[0], Span(start, start + len(line))
            except (ValueError, RecursionError):
                pass  # no row of a picture: it stays as it is, and the scan names it
            start += len(line) + 1

    def _members(self) -> Iterator[tuple[str, Span]]:
        yield from members(self._text).items()

    def _records(self) -> Iterator[tuple[str, Span]]:
        start, end = 0, 0

        def lines() -> Iterator[str]:
            nonlocal end
            for line in io.StringIO(self._text, newline=""):
                end += len(line)
                yield line

        columns: list[str] | None = None
        for row in csv.reader(lines(), delimiter=caption_tables.delimiter(self._text)):
            if columns is None:
                self._columns = columns = [column.strip().casefold() for column in row]
            elif len(row) <= len(columns) and any(cell.strip() for cell in row):
                try:
                    yield caption_tables.row_of(dict(zip(columns, row, strict=False)))[0], Span(start, end)
                except ValueError:
                    pass  # as above
            start = end

    def _with_caption(self, raw: str, caption: str) -> str:
        if self._name == caption_tables.JSONL:
            entry = json.loads(raw)
            key = next(key for key in caption_tables.TEXTS if key in entry)
            return replaced(raw, {key: caption}, self._ascii)
        if self._name == caption_tables.CSV:
            return self._with_cell(raw, caption)
        return object_with_caption(raw, caption, self._ascii)

    def _cells(self, raw: str) -> tuple[list[str], int]:
        """The fields of a line of CSV, and which of them is the caption. Of two columns of one name the last counts."""
        (row,) = csv.reader(io.StringIO(raw, newline=""), delimiter=caption_tables.delimiter(self._text))
        names = dict(zip(self._columns, range(len(row)), strict=False))
        return row, next(names[key] for key in caption_tables.TEXTS if key in names)

    def _with_cell(self, raw: str, caption: str) -> str:
        row, place = self._cells(raw)
        row[place] = caption
        line, ending = io.StringIO(newline=""), raw[len(raw.rstrip("\r\n")) :]
        quoted = raw.startswith('"') and raw.count('"') >= 2 * len(row)
        csv.writer(
            line,
            delimiter=caption_tables.delimiter(self._text),
            lineterminator=ending,
            quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL,
        ).writerow(row)
        return line.getvalue()


def object_with_caption(raw: str, caption: str, ascii_only: bool = False) -> str:
    """The JSON of one picture's captions, as ``caption_tables.of_picture`` reads it, with another caption.

    Tags stay tags where that can be told: where every line still ends with them, or still begins with the caption that
    stood before them. Otherwise all of the text becomes the caption, and the tags become empty.

    Raises:
        ValueError: it cannot hold the caption.
    """
    lines, entry = caption.split("\n"), json.loads(raw)
    if not isinstance(entry, dict):
        return json.dumps(_like(entry, lines), ensure_ascii=ascii_only)
    keys = caption_tables.OBJECT_TEXTS
    key = next((key for key in keys if caption_tables.strings(entry.get(key))), "")
    tags = ", ".join(caption_tables.strings(entry.get("tags")))
    before = [line for text in caption_tables.strings(entry.get(key)) for line in captions.tidy_lines(text).split("\n")]
    lines, rest = _divided(lines, before, captions.tidy(tags))
    changes: dict[str, Any] = {}
    if "tags" in entry and rest != captions.tidy(tags):
        changes["tags"] = [tag.strip() for tag in rest.split(",") if tag.strip()] if _many(entry["tags"]) else rest
    if key or any(lines):
        key = key or next((key for key in keys if key in entry), keys[0])
        changes[key] = _like(entry.get(key), lines)
    return replaced(raw, changes, ascii_only)


def _divided(lines: list[str], before: list[str], tags: str) -> tuple[list[str], str]:
    """New lines as captions and the tags after each; ``before`` and ``tags`` are the present ones."""
    if not tags:
        return lines, ""
    if not before and len(lines) == 1:
        return [], lines[0]
    if all(line == tags or line.endswith(f", {tags}") for line in lines):
        return [line.removesuffix(tags).removesuffix(", ") for line in lines], tags
    if len(lines) == len(before) and all(map(str.startswith, lines, before)):
        rests = {line.removeprefix(old) for line, old in zip(lines, before, strict=True)}
        rest = rests.pop()
        if not rests and (not rest or rest.startswith(", ")):
            return before, rest.removeprefix(", ")
    return lines, ""


def _like(value: Any, lines: list[str]) -> Any:
    """``lines`` in the form of ``value``: a text, a list or an object of texts."""
    if isinstance(value, dict) and len(value) == len(lines):
        return dict(zip(value, lines, strict=True))
    return lines if _many(value) else "\n".join(lines)


def _many(value: Any) -> bool:
    return isinstance(value, list | dict)


def replaced(raw: str, changes: Mapping[str, Any], ascii_only: bool = False) -> str:
    """The JSON object ``raw`` with other values for some keys. A key that it lacks is added at its end."""
    places, parts, done = members(raw), list[str](), 0
    new = {key: json.dumps(value, ensure_ascii=ascii_only) for key, value in changes.items()}
    for (start, end), text in sorted((places[key], text) for key, text in new.items() if key in places):
        parts += [raw[done:start], text]
        done = end
    added = ", ".join(f"{json.dumps(key)}: {text}" for key, text in new.items() if key not in places)
    if added:
        last = max((end for _, end in places.values()), default=raw.index("{") + 1)
        parts += [raw[done:last], ", " * bool(places), added]
        done = last
    return "".join([*parts, raw[done:]])


def members(text: str) -> dict[str, Span]:
    """Where the values of a JSON object are, by key; of two with one key the last counts, as in ``json.loads``."""
    found: dict[str, Span] = {}
    place = _after_space(text, _after_space(text, 0) + 1)
    while place < len(text) and text[place] != "}":
        key, place = _JSON.raw_decode(text, place)
        start = _after_space(text, _after_space(text, place) + 1)
        place = _JSON.raw_decode(text, start)[1]
        found[key] = Span(start, place)
        place = _after_space(text, place)
        place = _after_space(text, place + 1) if text[place : place + 1] == "," else place
    return found


def _after_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _escaped(text: str, data: bytes) -> bool:
    """Whether JSON in a text is written in ASCII alone: it was so before, or its encoding does not hold all letters."""
    return bool(captions.encoding(data).guessed) or (text.isascii() and "\\u" in text)
