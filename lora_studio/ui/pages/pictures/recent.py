"""The folders of pictures that were opened last."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from lora_studio import files, runs, starter
from lora_studio.dataset import listing, masks, pictures
from lora_studio.errors import SettingsError

MOST = 8
_RUNS = 30
"""Runs whose folders count."""


_Damaged = dict[str, int]
"""Files that could not be read when their folder was opened -> when they were changed, in nanoseconds."""
_OPENED = TypeAdapter(dict[str, _Damaged] | list[str])


class RecentFolder(NamedTuple):
    """A folder, and how many pictures it holds: without those in folders within it that have no repeats, and without
    files that could not be read when it was opened.
    """

    path: str
    pictures: int


def remember(folder: str, outputs: Path, unreadable: Iterable[str] = ()) -> None:
    """Puts ``folder`` first. The disk may refuse it: then it is not remembered.

    Args:
        unreadable: names of its files that should be pictures and cannot be read.
    """
    if not folder or folder in map(str, starter.sample_styles()):
        return
    known = {folder: _changed(folder, unreadable)} | {
        path: one for path, one in _opened(outputs).items() if path != folder
    }
    try:
        files.write(runs.recent_file(outputs), json.dumps(dict(islice(known.items(), 2 * MOST)), indent=1))
    except OSError:
        return  # a list for convenience; whatever matters says what the disk refuses


def recent(outputs: Path) -> list[RecentFolder]:
    """The folders that were opened last, then those of the latest runs. Those that are gone are left out."""
    samples = set(map(str, starter.sample_styles()))
    opened = _opened(outputs)
    paths = dict.fromkeys([*opened, *_trained(outputs)])
    found = ((path, _count(path, opened.get(path, {}))) for path in paths if path not in samples)
    return list(islice((RecentFolder(path, count) for path, count in found if count is not None), MOST))


def _opened(outputs: Path) -> dict[str, _Damaged]:
    """The folders, the latest first, with their damaged files."""
    try:
        known = _OPENED.validate_json(runs.recent_file(outputs).read_bytes())
    except (OSError, ValidationError):  # none was opened yet, or the file is damaged
        return {}
    return known if isinstance(known, dict) else dict.fromkeys(known, {})  # earlier versions wrote a list


def _changed(folder: str, names: Iterable[str]) -> _Damaged:
    found = {}
    for name in names:
        with suppress(OSError):  # it is gone meanwhile
            found[name] = os.stat(os.path.join(folder, name)).st_mtime_ns
    return found


def _trained(outputs: Path) -> Iterator[str]:
    for run in runs.existing(outputs)[:_RUNS]:
        try:
            yield run.settings().run.data
        except SettingsError:
            continue  # the library names it


def _count(path: str, damaged: _Damaged, prefix: str = "") -> int | None:
    """The pictures of a folder and of the ``N_name`` folders in it, by their names, without what is ``damaged`` still.
    ``prefix`` is the name of one of those with a slash, whose own folders do not count. None if it is gone.
    """
    try:
        with os.scandir(path) as entries:
            listed = list(entries)
    except (OSError, ValueError):
        return None
    shown = {one.name: one for one in listed if pictures.promises(one.name)}
    count = sum(not _is_damaged(shown[name], damaged, prefix) for name in shown.keys() - set(masks.among(shown)))
    inner = [one for one in listed if listing.is_concept(one.name) and one.is_dir(follow_symlinks=False)]
    return count + sum(_count(one.path, damaged, f"{one.name}/") or 0 for one in inner if not prefix)


def _is_damaged(file: os.DirEntry[str], damaged: _Damaged, prefix: str) -> bool:
    changed = damaged.get(prefix + file.name)
    try:
        return changed is not None and file.stat().st_mtime_ns == changed
    except OSError:  # it is gone, or a link to nothing
        return True
