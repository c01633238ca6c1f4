"""What lies in a dataset's folder: plain files, and kohya's ``N_name`` folders one level down. Nothing is opened.

Symbolic links are followed only to plain files inside the folder; hidden files, and papers such as a licence, are
passed over.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lora_studio.dataset.problems import Problem, grouped

MAX_PICTURES = 20_000
MAX_ENTRIES = 5 * MAX_PICTURES
"""Most entries of one folder that are looked at: pictures, captions and whatever else."""
MAX_REPEATS = 1000

_REPEATS = re.compile(r"(\d{1,9})_(.+)", re.DOTALL)
_PAPERS = frozenset("license licence readme notice copying credits authors changelog".split())
_SYSTEM = frozenset(("thumbs.db", "desktop.ini", "__macosx"))


@dataclass
class Place:
    """The folder itself (``prefix`` ""), or one ``N_name`` folder in it: ``repeats`` is N, ``concept`` its name."""

    folder: Path
    prefix: str = ""
    repeats: int = 1
    concept: str = ""
    files: dict[str, os.stat_result] = field(default_factory=dict)
    """Plain files by name, in the order of their names."""


def places(root: Path) -> tuple[list[Place], list[Problem]]:
    """``root`` (resolved) and its ``N_name`` folders that hold files, and what was wrong or passed over."""
    top, problems = Place(root), []
    links: list[str] = []
    folders = _fill(top, root, links, problems)
    found, unread = [top], []
    for name in folders:
        match = _REPEATS.fullmatch(name)
        if not match:
            unread.append(name)
            continue
        place = Place(root / name, f"{name}/", _repeats(int(match[1]), name, problems), match[2].strip())
        unread += [f"{name}/{inner}" for inner in _fill(place, root, links, problems)]
        if place.repeats:
            found.append(place)
    problems += grouped(
        "warning",
        unread,
        "folder inside was not read",
        "folders inside were not read",
        "Move their pictures up, choose one of them, or name them like 1_style.",
    )
    problems += grouped(
        "warning",
        links,
        "link was skipped",
        "links were skipped",
        "They lead out of the folder, in a circle or nowhere: copy the pictures into the folder.",
    )
    return found, problems


def is_paper(name: str) -> bool:
    """Whether a file's name says that it is about the folder (LICENSE.txt, README) and no caption."""
    return name.split(".")[0].casefold() in _PAPERS or name.lower().endswith(".md")


def is_concept(folder: str) -> bool:
    """Whether a folder's name is of kohya's form ``N_name``, so that its pictures are read N times an epoch."""
    return _REPEATS.fullmatch(folder) is not None


def _repeats(number: int, name: str, problems: list[Problem]) -> int:
    if number > MAX_REPEATS:
        problems.append(
            Problem(
                "warning",
                name,
                f"The folder's name asks for {number} repeats; {MAX_REPEATS} are taken.",
                "Name it with a smaller number.",
            )
        )
    if not number:
        problems.append(
            Problem(
                "left out",
                name,
                "The folder's name asks for 0 repeats, so its pictures are not trained on.",
                f"Name it 1{name.lstrip('0')} to use them.",
            )
        )
    return min(number, MAX_REPEATS)


def _fill(place: Place, root: Path, links: list[str], problems: list[Problem]) -> list[str]:
    """Puts the plain files of ``place`` into it; the folders in it, by name."""
    folders, unnamed = [], 0
    try:
        for count, entry in enumerate(_entries(place.folder)):
            if count >= MAX_ENTRIES:
                problems.append(
                    Problem(
                        "blocking",
                        place.prefix,
                        f"The folder holds more than {MAX_ENTRIES} files.",
                        "Choose a folder with your training pictures alone.",
                    )
                )
                break
            if entry.name.startswith(".") or entry.name.casefold() in _SYSTEM:
                continue
            if _unspeakable(entry.name):
                unnamed += 1
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
                f"The folder cannot be read: {error.strerror}.",
                "Check that it is still there and that you may read it.",
            )
        )
    if unnamed:
        problems.append(
            Problem("left out", place.prefix, f"{unnamed} files have names that are not valid text.", "Rename them.")
        )
    place.files = dict(sorted(place.files.items()))
    return sorted(folders)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from entries


def _unspeakable(name: str) -> bool:
    """Whether a name cannot be written into logs and manifests: it is no valid Unicode."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def _follow(entry: os.DirEntry[str], place: Place, root: Path, links: list[str]) -> None:
    """Takes a link to a plain file inside ``root`` as that file; notes any other one."""
    try:
        target = Path(entry.path).resolve(strict=True)
        status = target.stat()
    except (OSError, RuntimeError):  # a circle, or nothing there
        links.append(place.prefix + entry.name)
        return
    if target.is_relative_to(root) and stat.S_ISREG(status.st_mode):
        place.files[entry.name] = status
    else:
        links.append(place.prefix + entry.name)
