"""Pairs pictures with their captions: the file beside each, or its line in ``metadata.jsonl``."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from lora_studio import files
from lora_studio.dataset import captions
from lora_studio.dataset.listing import PictureFolder, is_non_caption
from lora_studio.dataset.problems import Problem, grouped

_FAULTS_NAMED = 5


def pair(folders: Sequence[PictureFolder], names: Collection[str]) -> tuple[dict[str, str], list[Problem]]:
    """Captions by the names of their pictures, and what was wrong. ``names`` are all pictures, good and bad, relative
    to the first folder.

    A ``.txt`` takes precedence over a ``.caption``, and both over a table. The result has no entry for a picture
    without a caption.
    """
    paths = {place.prefix + name: place.folder / name for place in folders for name in place.files}
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
    orphans = [name for key, name in sidecars.items() if key not in used and not is_non_caption(os.path.basename(name))]
    problems += more + grouped(
        "warning",
        orphans,
        "caption has no picture",
        "captions have no picture",
        "Rename each to match its picture, or delete it.",
    )
    both = "a .txt and a .caption, of which the .txt is used"
    problems += grouped(
        "warning",
        sorted(name for name, keys in owned.items() if len(keys) > 1),
        f"picture has {both}",
        f"pictures have {both}",
        "Delete the outdated one.",
    )
    return table | {name: read[keys[0]] for name, keys in owned.items() if keys and keys[0] in read}, problems


def _composed(name: str) -> str:
    """A name with composed accents: file systems differ in that."""
    return unicodedata.normalize("NFC", name)


def _read(sidecars: dict[str, str], paths: dict[str, Path]) -> tuple[dict[str, str], list[Problem]]:
    """The texts of caption files, by the keys of ``sidecars``, which has their names."""
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    guessed: dict[str, list[str]] = {}
    for key, name in sorted(sidecars.items()):
        data = _bytes(paths[name], name, captions.MAX_BYTES, problems)
        if data is None:
            continue
        text, encoding = captions.decode(data)
        texts[key] = captions.tidy_lines(text)
        if encoding:
            guessed.setdefault(encoding, []).append(name)
    for encoding, names in guessed.items():
        problems += grouped(
            "warning",
            names,
            f"caption is not UTF-8 and was read as {encoding}",
            f"captions are not UTF-8 and were read as {encoding}",
            "Check the text, or save it as UTF-8.",
        )
    return texts, problems


def _bytes(path: Path, name: str, limit: int, problems: list[Problem]) -> bytes | None:
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        problems.append(
            Problem("warning", name, f"The file cannot be read: {files.reason(error)}.", "Check that you may read it.")
        )
        return None
    if len(data) <= limit:
        return data
    problems.append(
        Problem("warning", name, f"The file is longer than {limit // 1024} KiB and was not read.", "Shorten it.")
    )
    return None


def _tables(paths: dict[str, Path], spelled: dict[str, str]) -> tuple[dict[str, str], list[Problem]]:
    """The captions of all ``metadata.jsonl`` by picture; those of an ``N_name`` folder take precedence."""
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
        f"line {table} names no picture in the folder",
        f"lines {table} name no picture in the folder",
        "Correct the file_name, or delete the line.",
    )
    return texts, problems
