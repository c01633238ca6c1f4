"""The folders of pictures that were opened last."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from lora_studio import files, runs, starter
from lora_studio.dataset import listing, masks, pictures
from lora_studio.errors import SettingsError

MOST = 8
_RUNS = 30
"""Runs whose folders count."""


class RecentFolder(NamedTuple):
    """A folder, and how many pictures it holds, without those in folders within it that have no repeats."""

    path: str
    pictures: int


def remember(folder: str, outputs: Path) -> None:
    """Puts ``folder`` first. The disk may refuse it: then it is not remembered."""
    if not folder or folder in map(str, starter.sample_styles()):
        return
    known = [folder, *(path for path in _opened(outputs) if path != folder)]
    try:
        files.write(runs.recent_file(outputs), json.dumps(known[: 2 * MOST], indent=1))
    except OSError:
        return  # a list for convenience; whatever matters says what the disk refuses


def recent(outputs: Path) -> list[RecentFolder]:
    """The folders that were opened last, then those of the latest runs. Those that are gone are left out."""
    samples = set(map(str, starter.sample_styles()))
    paths = dict.fromkeys([*_opened(outputs), *_trained(outputs)])
    found = ((path, _count(path)) for path in paths if path not in samples)
    return list(islice((RecentFolder(path, count) for path, count in found if count is not None), MOST))


def _opened(outputs: Path) -> list[str]:
    try:
        known = json.loads(runs.recent_file(outputs).read_bytes())
    except (OSError, ValueError, RecursionError):  # none was opened yet, or the file is damaged
        return []
    return [path for path in known if isinstance(path, str)] if isinstance(known, list) else []


def _trained(outputs: Path) -> Iterator[str]:
    for run in runs.existing(outputs)[:_RUNS]:
        try:
            yield run.settings().run.data
        except SettingsError:
            continue  # the library names it


def _count(path: str, within: bool = False) -> int | None:
    """The pictures of a folder and of the ``N_name`` folders in it, by their names; ``within`` is one of
    those, whose own folders do not count. None if it is gone.
    """
    try:
        with os.scandir(path) as entries:
            listed = list(entries)
    except (OSError, ValueError):
        return None
    shown = [one.name for one in listed if pictures.promises(one.name)]
    count = len(shown) - len(masks.among(shown))
    inner = [one.path for one in listed if listing.is_concept(one.name) and one.is_dir(follow_symlinks=False)]
    return count + sum(_count(one, within=True) or 0 for one in inner if not within)
