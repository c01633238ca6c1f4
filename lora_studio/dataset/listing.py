"""The content of a dataset's folder: files, and kohya's ``N_name`` folders one level down, or all folders below. No
file is opened.

Symbolic links are followed only to files inside the folder. Hidden files are skipped.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from lora_studio import files
from lora_studio.dataset import masks, pictures
from lora_studio.dataset.captions import composed
from lora_studio.dataset.preparation import MAX_REPEATS, FolderOptions
from lora_studio.dataset.problems import Problem, grouped
from lora_studio.language import ntr, tr

MAX_PICTURES = 20_000
MAX_ENTRIES = 5 * MAX_PICTURES
"""Highest number of entries of a dataset: pictures, captions and others."""

_REPEATS = re.compile(r"(\d{1,9})_(.+)", re.DOTALL)
_NAMED = 3
"""Names that a sentence shows; the others are counted."""
_NON_CAPTIONS = frozenset("license licence readme notice copying credits authors changelog".split())
_SYSTEM = frozenset(("thumbs.db", "desktop.ini", "__macosx"))


@dataclass
class PictureFolder:
    """The dataset's folder (``prefix`` ""), or one below it: ``repeats`` is the N and ``concept`` the name of an
    ``N_name`` folder, unless its ``options`` say otherwise. One of ``masks`` holds those of the pictures in the folder
    around it.
    """

    folder: Path
    prefix: str = ""
    repeats: int = 1
    concept: str = ""
    options: FolderOptions = FolderOptions()
    masks: bool = False
    files: dict[str, os.stat_result] = field(default_factory=dict)
    """Files by name, sorted."""


def folders(
    root: Path, nested: bool = False, options: Mapping[str, FolderOptions] = MappingProxyType({})
) -> tuple[list[PictureFolder], list[Problem]]:
    """``root`` (resolved) and its ``N_name`` folders, or with ``nested`` all folders below it; and what was wrong or
    skipped. A folder has the repeats, concept and options of the one that it is in, unless it is an ``N_name`` folder
    or has ``options`` of its own, by its name relative to ``root``.
    """
    walk = _Walk(root)
    own = options.get("", FolderOptions())
    found, unread = [PictureFolder(root, repeats=own.repeats or 1, options=own)], list[str]()
    for place in found:  # which grows while it is read
        for name in walk.fill(place):
            inner = replace(place, folder=place.folder / name, prefix=f"{place.prefix}{name}/", files={})
            own = options.get(composed(inner.prefix[:-1]))
            match = _REPEATS.fullmatch(name)
            inner.masks = name.casefold() in masks.FOLDERS
            if place.masks:
                unread.append(place.prefix + name)
                continue
            if match and (nested or place.folder == root):
                inner.options, inner.concept = own or FolderOptions(), match[2].strip()
                inner.repeats = inner.options.repeats or _repeats(int(match[1]), name, walk.problems)
            elif not inner.masks and (not nested or name.casefold() in masks.CONDITIONS):
                unread.append(place.prefix + name)
                continue
            elif own:
                inner.options, inner.repeats = own, own.repeats or place.repeats
            if inner.repeats:
                found.append(inner)
    problems = walk.problems + _unread(root, sorted(unread))
    problems += grouped(
        "warning",
        "link",
        walk.links,
        "link was skipped",
        "links were skipped",
        tr("They lead out of the folder or nowhere. Copy the pictures into the folder."),
    )
    return found, problems


def is_non_caption(name: str) -> bool:
    """Whether a file is about the folder by its name (LICENSE.txt, README.md), so that it is no orphaned caption."""
    return name.split(".")[0].casefold() in _NON_CAPTIONS or name.lower().endswith(".md")


def default_caption(folder: str, options: Mapping[str, FolderOptions]) -> str:
    """The caption of pictures that have none in ``folder``, by its name relative to the dataset's, "" for that: its
    options', else its concept, as ``folders`` gives them.
    """
    own, concept, parts = options.get("", FolderOptions()), "", folder.split("/") if folder else []
    for depth, part in enumerate(parts, 1):
        chosen = options.get(composed("/".join(parts[:depth])))
        if match := _REPEATS.fullmatch(part):
            own, concept = chosen or FolderOptions(), match[2].strip()
        else:
            own = chosen or own
    return own.caption or concept


def is_concept(folder: str) -> bool:
    """Whether a folder's name is of kohya's form ``N_name``, so that its pictures are read N times an epoch."""
    return _REPEATS.fullmatch(folder) is not None


def _repeats(number: int, name: str, problems: list[Problem]) -> int:
    if number > MAX_REPEATS:
        problems.append(
            Problem(
                "warning",
                "repeats",
                name,
                tr(
                    "The folder's name asks for {number:,} repeats; {most:,} are used.", number=number, most=MAX_REPEATS
                ),
                tr("Rename it with a smaller number."),
            )
        )
    if not number:
        problems.append(
            Problem(
                "left out",
                "repeats",
                name,
                tr("The folder's name asks for 0 repeats, so its pictures are not trained on."),
                tr("Rename it to {name} to use them.", name=f"1{name.lstrip('0')}"),
            )
        )
    return min(number, MAX_REPEATS)


def _unread(root: Path, names: Sequence[str]) -> list[Problem]:
    """The warning of folders that were not read, with how many pictures they hold."""
    counts = {name: _pictures_below(root / name) for name in names}
    notes = {name: ntr(count, "{count:,} picture", "{count:,} pictures") for name, count in counts.items() if count}
    inner = [name for name in names if os.path.basename(os.path.dirname(name)).casefold() in masks.FOLDERS]
    found = grouped(
        "warning",
        "unread folder",
        inner,
        "folder of masks within another was not read",
        "folders within one of masks were not read",
        tr("Put masks directly into the folder of masks, each under the name of its picture."),
        notes,
    )
    aside = [name for name in names if os.path.basename(name).casefold() in masks.CONDITIONS]
    do = tr(
        "By its name it holds inputs of another kind of model. Name a folder of masks {name}.", name=masks.FOLDERS[0]
    )
    found += grouped("warning", "unread folder", aside, "folder was not read", "folders were not read", do, notes)
    others = [name for name in names if name not in (*inner, *aside)]
    do = tr(
        "To read them, switch on nested. Without, only folders directly in this one and named like 1_style are read."
    )
    return found + grouped(
        "warning", "unread folder", others, "subfolder was not read", "subfolders were not read", do, notes
    )


def _pictures_below(folder: Path) -> int:
    """Files that are pictures by their names, up to ``MAX_PICTURES``."""
    names = (
        name
        for place, inner, found in os.walk(folder)
        for name in found
        if not name.startswith(".") and pictures.promises(name)
    )
    return sum(1 for _ in islice(names, MAX_PICTURES))


def _not_text(place: PictureFolder, names: Sequence[str]) -> Problem:
    named = ", ".join(sorted(names)[:_NAMED]) + (" …" if len(names) > _NAMED else "")
    what = ntr(
        len(names),
        "{count} name is not valid Unicode: {names}.",
        "{count} names are not valid Unicode: {names}.",
        names=named,
    )
    return Problem("left out", "name", place.prefix, what, ntr(len(names), "Rename it.", "Rename them."))


class _Walk:
    """Lists folders of one dataset, and collects the links that were skipped and the problems."""

    def __init__(self, root: Path):
        self.root, self.left = root, MAX_ENTRIES
        self.links: list[str] = []
        self.problems: list[Problem] = []

    def fill(self, place: PictureFolder) -> list[str]:
        """Fills in the files of ``place``, and returns the names of the folders in it, sorted."""
        folders, unnamed = list[str](), list[str]()
        try:
            for entry in _entries(place.folder):
                if not self.left:
                    self._endless(place)
                    break
                self.left -= 1
                if entry.name.startswith(".") or entry.name.casefold() in _SYSTEM:
                    continue
                if not files.is_text(entry.name):
                    unnamed.append(files.printable(entry.name))
                elif entry.is_symlink():
                    self._follow(entry, place)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    place.files[entry.name] = entry.stat(follow_symlinks=False)
        except OSError as error:
            what = tr("The folder cannot be read: {reason}.", reason=files.reason(error))
            do = tr("Check that it exists and that you may read it.")
            self.problems.append(
                Problem("left out" if place.prefix else "blocking", "unread folder", place.prefix, what, do)
            )
        if unnamed:
            self.problems.append(_not_text(place, unnamed))
        place.files = dict(sorted(place.files.items()))
        return sorted(folders)

    def _endless(self, place: PictureFolder) -> None:
        what = tr("The folder contains more than {most:,} files.", most=MAX_ENTRIES)
        if not any(problem.what == what for problem in self.problems):
            do = tr("Choose a folder with only your training pictures.")
            self.problems.append(Problem("blocking", "too many", place.prefix, what, do))

    def _follow(self, entry: os.DirEntry[str], place: PictureFolder) -> None:
        """Adds a link to a file inside the dataset as that file; any other one is skipped."""
        try:
            target = Path(entry.path).resolve(strict=True)
            status = target.stat()
        except (OSError, RuntimeError):  # a loop, or no such file
            self.links.append(place.prefix + entry.name)
            return
        if target.is_relative_to(self.root) and stat.S_ISREG(status.st_mode):
            place.files[entry.name] = status
        else:
            self.links.append(place.prefix + entry.name)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from entries
