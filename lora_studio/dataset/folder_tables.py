"""Finds the tables of captions in a folder and the pictures that they name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lora_studio.dataset import caption_tables
from lora_studio.dataset.captions import composed, decode, read_bytes
from lora_studio.dataset.problems import Problem, grouped
from lora_studio.language import in_row, tr

_FAULTS_NAMED = 5
_FORMS = {
    caption_tables.JSONL: tr('Write one line per picture: {"file_name": "a.png", "text": "a caption"}.'),
    caption_tables.CSV: tr('Begin with the line file_name,text and write one line per picture: a.png,"a caption".'),
}
_SD_SCRIPTS = tr('Write an object with one entry per picture: {"a": {"caption": "a caption", "tags": "ink, gold"}}.')


class Found(NamedTuple):
    """The captions of one table by picture, relative to the dataset's folder. ``entries`` is what the table calls each
    picture, as in ``caption_tables.Table``; one entry may be of several, ``a`` of ``a.png`` and ``a.jpg``.
    """

    name: str
    captions: dict[str, str]
    entries: dict[str, str]


class _Pictures:
    """The pictures of a dataset, to be found by what tables call them."""

    def __init__(self, root: Path, names: Mapping[str, str]):
        self._root = composed(root.as_posix().lstrip("/"))
        self._exact = names
        self._stems: dict[str, list[str]] = {}
        for key, name in names.items():
            self._stems.setdefault(os.path.splitext(key)[0], []).append(name)

    def find(self, prefix: str, name: str) -> list[str]:
        """The pictures that a table in the folder ``prefix`` calls ``name``. Of a whole path, which may be another
        machine's, the longest end that names a picture counts.
        """
        if not name.startswith("/"):
            return self._called(prefix + name)
        parts = name[1:].split("/")
        ends = ["/".join(parts[start:]) for start in range(len(parts))]
        inside = name[1:].removeprefix(f"{self._root}/")
        return next((found for end in (inside, *ends) if (found := self._called(end))), [])

    def _called(self, name: str) -> list[str]:
        return [self._exact[name]] if name in self._exact else self._stems.get(name, [])


def find(root: Path, paths: Mapping[str, Path], names: Mapping[str, str]) -> tuple[list[Found], list[Problem]]:
    """All tables of a folder, in order of precedence: those of folders in it first, then as ``TABLES`` has them; and
    what was wrong.

    Args:
        root: the dataset's folder.
        paths: every file by its name, relative to ``root``.
        names: every picture's name by itself with composed accents.
    """
    pictures, problems = _Pictures(root, names), []
    found: list[Found] = []
    for name in sorted((name for name in paths if is_table(name)), key=_precedence):
        data = read_bytes(paths[name], name, caption_tables.MAX_BYTES, problems)
        if data is not None:
            found.append(_matched(name, data, pictures, problems))
    return found, problems


def is_table(name: str) -> bool:
    """Whether a file is a table of captions, by its name."""
    return os.path.basename(name) in caption_tables.TABLES


def _precedence(name: str) -> tuple[int, int, str]:
    return -name.count("/"), caption_tables.TABLES.index(os.path.basename(name)), name


def _matched(name: str, data: bytes, pictures: _Pictures, problems: list[Problem]) -> Found:
    base = os.path.basename(name)
    table = caption_tables.read(base, data)
    if encoding := decode(data)[1]:
        what = tr("The table is not UTF-8 and was read as {encoding}.", encoding=encoding)
        problems.append(Problem("warning", "caption encoding", name, what, tr("Check the texts, or save it as UTF-8.")))
    texts: dict[str, str] = {}
    entries: dict[str, str] = {}
    orphans: list[str] = []
    repeated: list[str] = []
    for entry, text in table.captions.items():
        called = pictures.find(name.removesuffix(base), entry)
        for picture in called:
            if picture in texts:
                repeated.append(picture)
            texts.setdefault(picture, text)
            entries.setdefault(picture, entry)
        if not called:
            orphans.append(entry if entry.startswith("/") else name.removesuffix(base) + entry)
    problems += _faults(name, table.faults + [tr("it names {picture} again", picture=picture) for picture in repeated])
    problems += grouped(
        "warning",
        "orphan caption",
        orphans,
        "caption in {base} is of no picture in the folder",
        "captions in {base} are of no picture in the folder",
        tr("Correct the file name there, or delete the entry."),
        base=base,
    )
    return Found(name, texts, entries)


def _faults(name: str, faults: list[str]) -> list[Problem]:
    if not faults:
        return []
    told, more = in_row(faults[:_FAULTS_NAMED]), len(faults) - _FAULTS_NAMED
    if more > 0:
        told = tr("{told}; and {more} more", told=told, more=more)
    return [
        Problem(
            "warning",
            "table",
            name,
            tr("Not all of it is used: {told}.", told=told),
            _FORMS.get(os.path.basename(name), _SD_SCRIPTS),
        )
    ]
