"""Pairs pictures with their captions: the file beside each, or what a table of many captions says."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lora_studio.dataset import caption_tables, captions, folder_tables
from lora_studio.dataset.captions import composed, read_bytes
from lora_studio.dataset.listing import PictureFolder, is_non_caption
from lora_studio.dataset.problems import Problem, grouped
from lora_studio.language import both, tr


def pair(folders: Sequence[PictureFolder], names: Collection[str]) -> tuple[dict[str, str], list[Problem]]:
    """Captions by the names of their pictures, and what was wrong. ``names`` are all pictures, good and bad, relative
    to the first folder.

    A ``.txt`` takes precedence over a ``.caption``, that over a ``.json``, and all over tables, in the order of
    ``folder_tables.find``. The result has no entry for a picture without a caption.
    """
    paths = {place.prefix + name: place.folder / name for place in folders for name in place.files}
    sidecars = _Sidecars(paths, names)
    texts, problems = sidecars.read(paths)
    tables, more = folder_tables.find(folders[0].folder, paths, {composed(name): name for name in names})
    problems += more + sidecars.problems() + _differing(texts, tables) + _unread(paths, sidecars.used)
    for table in tables:
        texts = table.captions | texts
    return texts, problems


class CaptionSource(NamedTuple):
    """Where a picture's caption is written: a file, and in a table the entry, as ``caption_tables.Table`` names it.

    Attributes:
        file: relative to the dataset's folder.
        entry: "" where the file is not a table.
        text: the caption as it is read.
        pictures: all that this is the caption of: ``a.txt`` is beside ``a.png`` and ``a.jpg``.
    """

    file: str
    entry: str
    text: str
    pictures: tuple[str, ...]


def sources(
    root: Path,
    paths: Mapping[str, Path],
    names: Collection[str],
    wanted: Collection[str],
    files: Mapping[str, Sequence[str]],
) -> dict[str, CaptionSource]:
    """Where the captions of the pictures ``wanted`` come from. No entry for a picture without one.

    Args:
        root: the dataset's folder.
        paths: every file by its name, relative to ``root``.
        names: of all pictures.
        files: those beside pictures, as ``beside`` gives them.
    """
    owned = {name: found[0] for name, found in files.items()}
    texts, _ = _read(sorted({owned[name] for name in wanted if name in owned}), paths)
    sharing: dict[str, list[str]] = {}
    for name, file in owned.items():
        sharing.setdefault(file, []).append(name)
    found = {
        name: CaptionSource(file, "", texts[file], tuple(sharing[file]))
        for name in wanted
        if (file := owned.get(name, "")) in texts
    }
    left = [name for name in wanted if name not in found]
    return found | (_in_tables(root, paths, names, left) if left else {})


def _in_tables(
    root: Path, paths: Mapping[str, Path], names: Collection[str], wanted: Collection[str]
) -> dict[str, CaptionSource]:
    found: dict[str, CaptionSource] = {}
    for table in folder_tables.find(root, paths, {composed(name): name for name in names})[0]:
        called: dict[str, list[str]] = {}
        for name, entry in table.entries.items():
            called.setdefault(entry, []).append(name)
        for name in wanted:
            if name in table.entries and name not in found:
                entry = table.entries[name]
                found[name] = CaptionSource(table.name, entry, table.captions[name], tuple(called[entry]))
    return found


def beside(paths: Collection[str], names: Collection[str]) -> dict[str, list[str]]:
    """The caption files beside each picture that has some, in order of precedence."""
    return _Sidecars(paths, names).owned


class _Sidecars:
    """The caption files beside pictures.

    Attributes:
        owned: the files of each picture that has some, in order of precedence.
        used: all of them.
        orphans: those beside no picture.
    """

    def __init__(self, paths: Collection[str], names: Collection[str]):
        files = {
            composed(stem) + suffix.lower(): name
            for name in paths
            for stem, suffix in [os.path.splitext(name)]
            if suffix.lower() in captions.SUFFIXES and not folder_tables.is_table(name)
        }
        beside = {name: composed(os.path.splitext(name)[0]) for name in names}
        self.owned = {
            name: found
            for name, stem in beside.items()
            if (found := [files[stem + suffix] for suffix in captions.SUFFIXES if stem + suffix in files])
        }
        self.used = {name for found in self.owned.values() for name in found}
        self.orphans = [name for name in files.values() if name not in self.used]

    def read(self, paths: Mapping[str, Path]) -> tuple[dict[str, str], list[Problem]]:
        """The first caption file of each picture, by picture."""
        texts, problems = _read(sorted({found[0] for found in self.owned.values()}), paths)
        return {name: texts[found[0]] for name, found in self.owned.items() if found[0] in texts}, problems

    def problems(self) -> list[Problem]:
        """Files beside no picture, and pictures with several."""
        lost = [name for name in self.orphans if not name.endswith(".json") and not _is_non_caption(name)]
        found = grouped(
            "warning",
            "orphan caption",
            lost,
            "caption has no picture",
            "captions have no picture",
            tr("Rename each to match its picture, or delete it."),
        )
        several: dict[tuple[str, ...], list[str]] = {}
        for name, files in self.owned.items():
            kinds = tuple(os.path.splitext(file)[1].lower() for file in files)
            several.setdefault(kinds, []).append(name)
        for (used, *others), pictures in sorted(several.items()):
            if others:
                listed = both(tr("a {kind}", kind=kind) for kind in (used, *others))
                found += grouped(
                    "warning",
                    "two captions",
                    sorted(pictures),
                    "picture has {listed}, of which the {used} is used",
                    "pictures have {listed}, of which the {used} is used",
                    tr("Delete the outdated one."),
                    listed=listed,
                    used=used,
                )
        return found


def _read(names: Sequence[str], paths: Mapping[str, Path]) -> tuple[dict[str, str], list[Problem]]:
    """The texts of caption files by their names."""
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    guessed: dict[str, list[str]] = {}
    unknown: dict[str, list[str]] = {}
    for name in names:
        is_json = name.lower().endswith(".json")
        limit = caption_tables.MAX_JSON_BYTES if is_json else captions.MAX_BYTES
        data = read_bytes(paths[name], name, limit, problems)
        if data is None:
            continue
        text, encoding = captions.decode(data)
        try:
            texts[name] = caption_tables.of_picture(data) if is_json else captions.tidy_lines(text)
        except ValueError as error:
            unknown.setdefault(error.args[0] if error.args else str(error), []).append(name)
            continue
        if encoding:
            guessed.setdefault(encoding, []).append(name)
    for encoding, files in guessed.items():
        problems += grouped(
            "warning",
            "caption encoding",
            files,
            "caption is not UTF-8 and was read as {encoding}",
            "captions are not UTF-8 and were read as {encoding}",
            tr("Check the text, or save it as UTF-8."),
            encoding=encoding,
        )
    for reason, files in unknown.items():
        problems += grouped(
            "warning",
            "not a caption",
            files,
            "file beside a picture is not read as its caption (it {reason})",
            "files beside pictures are not read as their captions (each {reason})",
            tr('If it holds a caption, write it as {"caption": "a boat", "tags": ["ink", "gold"]} or into a .txt.'),
            reason=reason,
        )
    return texts, problems


def _differing(texts: Mapping[str, str], tables: Sequence[folder_tables.Found]) -> list[Problem]:
    """Pictures with different captions in two places."""
    first = dict.fromkeys(texts, tr("their own files"))
    known = dict(texts)
    differing: dict[tuple[str, str], list[str]] = {}
    for table in tables:
        for name, text in table.captions.items():
            if known.setdefault(name, text) != text:
                differing.setdefault((first[name], table.name), []).append(name)
            first.setdefault(name, table.name)
    found: list[Problem] = []
    for (used, other), names in differing.items():
        found += grouped(
            "warning",
            "two captions",
            sorted(names),
            "picture has different captions in {used} and {other}, of which the former is used",
            "pictures have different captions in {used} and {other}, of which the former are used",
            tr("Delete the outdated ones."),
            used=used,
            other=other,
        )
    return found


def _unread(paths: Collection[str], used: Collection[str]) -> list[Problem]:
    """Files that look like captions and are not read."""
    names = [
        name
        for name in paths
        if os.path.splitext(name)[1].lower() in captions.UNREAD
        and name not in used
        and not folder_tables.is_table(name)
        and not _is_non_caption(name)
    ]
    return grouped(
        "warning",
        "unread captions",
        sorted(names),
        "file may hold captions and is not read",
        "files may hold captions and are not read",
        tr(
            "Captions are read from a .txt, .caption or .json beside each picture, {jsonl}, {csv} and sd-scripts' "
            "{last}.",
            jsonl=caption_tables.JSONL,
            csv=caption_tables.CSV,
            last=caption_tables.TABLES[-1],
        ),
    )


def _is_non_caption(name: str) -> bool:
    return is_non_caption(os.path.basename(name))
