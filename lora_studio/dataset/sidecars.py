"""Which caption belongs to which picture: the file beside it, or its line in ``metadata.jsonl``."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from lora_studio.dataset import captions
from lora_studio.dataset.listing import Place, is_paper
from lora_studio.dataset.problems import Problem, grouped

_FAULTS_NAMED = 5


def pair(places: Sequence[Place], names: Collection[str]) -> tuple[dict[str, str], list[Problem]]:
    """Captions by their pictures' names, and what was wrong. ``names`` are all pictures, good and bad, relative to the
    first place.

    A ``.txt`` comes before a ``.caption``, and both before a table. A picture without any is not in the result.
    """
    paths = {place.prefix + name: place.folder / name for place in places for name in place.files}
    spelled = {_composed(name): name for name in names}
    table, problems = _tables(paths, spelled)
    sidecars = {
        _composed(stem) + suffix.lower(): name
        for name in paths
        for stem, suffix in [os.path.splitext(name)]
        if suffix.lower() in captions.SUFFIXES
    }
    owned = {
        name: [
            key for suffix in captions.SUFFIXES if (key := _composed(os.path.splitext(name)[0]) + suffix) in sidecars
        ]
        for name in names
    }
    read, more = _read({key: sidecars[key] for keys in owned.values() for key in keys[:1]}, paths)
    used = {key for keys in owned.values() for key in keys}
    orphans = [name for key, name in sidecars.items() if key not in used and not is_paper(os.path.basename(name))]
    problems += more + grouped(
        "warning",
        orphans,
        "caption belongs to no picture",
        "captions belong to no picture",
        "Give each the name of its picture, or delete it.",
    )
    both = "both a .txt and a .caption, of which the .txt is used"
    problems += grouped(
        "warning",
        sorted(name for name, keys in owned.items() if len(keys) > 1),
        f"picture has {both}",
        f"pictures have {both}",
        "Delete the one that is out of date.",
    )
    return table | {name: read[keys[0]] for name, keys in owned.items() if keys and keys[0] in read}, problems


def _composed(name: str) -> str:
    """A name in one spelling of its accents: file systems differ in it."""
    return unicodedata.normalize("NFC", name)


def _read(sidecars: dict[str, str], paths: dict[str, Path]) -> tuple[dict[str, str], list[Problem]]:
    """The texts of caption files, by the same keys as ``sidecars``, which gives their names."""
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    guessed: dict[str, list[str]] = {}
    for key, name in sorted(sidecars.items()):
        data = _bytes(paths[name], name, captions.MAX_BYTES, problems)
        if data is None:
            continue
        text, encoding = captions.decode(data)
        texts[key] = captions.tidy(text)
        if encoding:
            guessed.setdefault(encoding, []).append(name)
    for encoding, names in guessed.items():
        problems += grouped(
            "warning",
            names,
            f"caption is not UTF-8 and was read as {encoding}",
            f"captions are not UTF-8 and were read as {encoding}",
            "Check the letters, or save it as UTF-8.",
        )
    return texts, problems


def _bytes(path: Path, name: str, limit: int, problems: list[Problem]) -> bytes | None:
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        problems.append(
            Problem("warning", name, f"The file cannot be read: {error.strerror}.", "Check that you may read it.")
        )
        return None
    if len(data) <= limit:
        return data
    problems.append(
        Problem("warning", name, f"The file is longer than {limit // 1024} KiB and was not read.", "Shorten it.")
    )
    return None


def _tables(paths: dict[str, Path], spelled: dict[str, str]) -> tuple[dict[str, str], list[Problem]]:
    """The captions of all ``metadata.jsonl`` by picture; one further down comes before the folder's own."""
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    orphans: list[str] = []
    for name in sorted((name for name in paths if os.path.basename(name) == captions.TABLE), key=len):
        data = _bytes(paths[name], name, captions.MAX_TABLE_BYTES, problems)
        if data is None:
            continue
        prefix, table = name.removesuffix(captions.TABLE), captions.read_table(data)
        if table.faults:
            shown = "; ".join(f"line {number} {fault}" for number, fault in table.faults[:_FAULTS_NAMED])
            more = f"; and {len(table.faults) - _FAULTS_NAMED} more" if len(table.faults) > _FAULTS_NAMED else ""
            problems.append(
                Problem(
                    "warning",
                    name,
                    f"Some lines are not used: {shown}{more}.",
                    'Write one line per picture: {"file_name": "a.png", "text": "a caption"}.',
                )
            )
        for entry, text in table.captions.items():
            if prefix + entry in spelled:
                texts[spelled[prefix + entry]] = text
            else:
                orphans.append(prefix + entry)
    table = f"of {captions.TABLE}"
    problems += grouped(
        "warning",
        orphans,
        f"line {table} names no picture of the folder",
        f"lines {table} name no picture of the folder",
        "Correct file_name, or delete the line.",
    )
    return texts, problems
