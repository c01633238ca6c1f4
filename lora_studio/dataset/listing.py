"""The content of a dataset's folder: files, and kohya's ``N_name`` folders one level down. No file is opened.

Symbolic links are followed only to files inside the folder. Hidden files are skipped.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lora_studio import files
from lora_studio.dataset.problems import Problem, grouped

MAX_PICTURES = 20_000
MAX_ENTRIES = 5 * MAX_PICTURES
"""Highest number of entries of one folder: pictures, captions and others."""
MAX_REPEATS = 1000

_REPEATS = re.compile(r"(\d{1,9})_(.+)", re.DOTALL)
_NAMED = 3
"""Names that a sentence shows; the others are counted."""
_NON_CAPTIONS = frozenset("license licence readme notice copying credits authors changelog".split())
_SYSTEM = frozenset(("thumbs.db", "desktop.ini", "__macosx"))


@dataclass
class PictureFolder:
    """The dataset's folder (``prefix`` ""), or an ``N_name`` folder in it: ``repeats`` is N, ``concept`` is name."""

    folder: Path
    prefix: str = ""
    repeats: int = 1
    concept: str = ""
    files: dict[str, os.stat_result] = field(default_factory=dict)
    """Files by name, sorted."""


def folders(root: Path) -> tuple[list[PictureFolder], list[Problem]]:
    """``root`` (resolved) and its ``N_name`` folders, and what was wrong or skipped."""
    top, problems = PictureFolder(root), []
    links: list[str] = []
    names = _fill(top, root, links, problems)
    found, unread = [top], []
    for name in names:
        match = _REPEATS.fullmatch(name)
        if not match:
            unread.append(name)
            continue
        place = PictureFolder(root / name, f"{name}/", _repeats(int(match[1]), name, problems), match[2].strip())
        unread += [f"{name}/{inner}" for inner in _fill(place, root, links, problems)]
        if place.repeats:
            found.append(place)
    problems += grouped(
        "warning",
        unread,
        "subfolder was not read",
        "subfolders were not read",
        "Move their pictures into the folder, choose one of them, or name them like 1_style.",
    )
    problems += grouped(
        "warning",
        links,
        "link was skipped",
        "links were skipped",
        "They lead out of the folder or nowhere. Copy the pictures into the folder.",
    )
    return found, problems


def is_non_caption(name: str) -> bool:
    """Whether a file is about the folder by its name (LICENSE.txt, README.md), so that it is no orphaned caption."""
    return name.split(".")[0].casefold() in _NON_CAPTIONS or name.lower().endswith(".md")


def is_concept(folder: str) -> bool:
    """Whether a folder's name is of kohya's form ``N_name``, so that its pictures are read N times an epoch."""
    return _REPEATS.fullmatch(folder) is not None


def _repeats(number: int, name: str, problems: list[Problem]) -> int:
    if number > MAX_REPEATS:
        problems.append(
            Problem(
                "warning",
                name,
                f"The folder's name asks for {number:,} repeats; {MAX_REPEATS:,} are used.",
                "Rename it with a smaller number.",
            )
        )
    if not number:
        problems.append(
            Problem(
                "left out",
                name,
                "The folder's name asks for 0 repeats, so its pictures are not trained on.",
                f"Rename it to 1{name.lstrip('0')} to use them.",
            )
        )
    return min(number, MAX_REPEATS)


def _fill(place: PictureFolder, root: Path, links: list[str], problems: list[Problem]) -> list[str]:
    """Fills in the files of ``place``, and returns the names of the folders in it."""
    folders: list[str] = []
    unnamed: list[str] = []
    try:
        for count, entry in enumerate(_entries(place.folder)):
            if count >= MAX_ENTRIES:
                problems.append(
                    Problem(
                        "blocking",
                        place.prefix,
                        f"The folder contains more than {MAX_ENTRIES:,} files.",
                        "Choose a folder with only your training pictures.",
                    )
                )
                break
            if entry.name.startswith(".") or entry.name.casefold() in _SYSTEM:
                continue
            if not files.is_text(entry.name):
                unnamed.append(files.printable(entry.name))
            elif entry.is_symlink():
                _follow(entry, place, root, links)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif entry.is_file(follow_symlinks=False):
                place.files[entry.name] = entry.stat(follow_symlinks=False)
    except OSError as error:
        problems.append(
            Problem(
                "left out" if place.prefix else "blocking",
                place.prefix,
                f"The folder cannot be read: {files.reason(error)}.",
                "Check that it exists and that you may read it.",
            )
        )
    if unnamed:
        one = len(unnamed) == 1
        what = "1 name is not valid Unicode" if one else f"{len(unnamed)} names are not valid Unicode"
        named = ", ".join(sorted(unnamed)[:_NAMED]) + (" …" if len(unnamed) > _NAMED else "")
        problems.append(Problem("left out", place.prefix, f"{what}: {named}.", "Rename it." if one else "Rename them."))
    place.files = dict(sorted(place.files.items()))
    return sorted(folders)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from entries


def _follow(entry: os.DirEntry[str], place: PictureFolder, root: Path, links: list[str]) -> None:
    """Adds a link to a file inside ``root`` as that file; any other one is added to ``links``."""
    try:
        target = Path(entry.path).resolve(strict=True)
        status = target.stat()
    except (OSError, RuntimeError):  # a loop, or no such file
        links.append(place.prefix + entry.name)
        return
    if target.is_relative_to(root) and stat.S_ISREG(status.st_mode):
        place.files[entry.name] = status
    else:
        links.append(place.prefix + entry.name)
