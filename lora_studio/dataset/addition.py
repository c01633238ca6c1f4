"""More pictures and captions for a dataset that is there: they get names that are free, and nothing is replaced."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lora_studio import files
from lora_studio.dataset import caption_tables, captions, intake, preparation
from lora_studio.dataset.intake import Item
from lora_studio.dataset.preparation import Preparation
from lora_studio.dataset.problems import Problem
from lora_studio.errors import DatasetError
from lora_studio.language import tr

_STAGE = ".adding"
_ADDED = PurePosixPath("added")
"""A folder in front of new names, so that none of them goes with a file that is there."""


class Addition(NamedTuple):
    """What came with files that were added.

    Attributes:
        left_out: what was not taken.
        choices: crops, pictures left out and options of folders that an archive held, by the names that its pictures
            have now. They are still to be made: ``curation.workbench`` does, so that they can be undone.
    """

    left_out: list[Problem]
    choices: Preparation


def add(folder: Path, uploaded: Sequence[Path | Item]) -> Addition:
    """Copies the ``uploaded`` files into the dataset ``folder``, as ``intake.fill`` does into an empty one.

    Raises:
        DatasetError, MachineError: as ``intake.fill``; nothing was added then.
        OSError: a file cannot be read or written.
    """
    stage = folder / _STAGE
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    try:
        problems = intake.fill(stage, uploaded)
        new = [name for name in _names(stage) if str(name) not in (caption_tables.JSONL, preparation.NAME)]
        present = [name for name in _names(folder) if name.parts[0] != preparation.FOLDER]
        free = intake.new_names([*present, *(_ADDED / name for name in new)])[len(present) :]
        renamed = dict(zip(map(str, new), map(str, free), strict=True))
        for old, name in renamed.items():
            target = folder / name
            if target.exists():
                raise DatasetError(
                    tr("There is a file {name} already.", name=name), where=folder, do=tr("Rename it, then add again.")
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(stage / old, target)
        _add_table(folder, stage, renamed)
        choices, faults = _choices(stage, renamed)
        return Addition(problems + faults, choices)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _names(folder: Path) -> Iterator[PurePosixPath]:
    """All files of a dataset, without hidden folders but the one of choices."""
    for parent, inner, found in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith(".") or name == preparation.FOLDER)
        yield from (PurePosixPath(Path(parent, name).relative_to(folder).as_posix()) for name in sorted(found))


def _add_table(folder: Path, stage: Path, renamed: Mapping[str, str]) -> None:
    source, target = stage / caption_tables.JSONL, folder / caption_tables.JSONL
    if not source.exists():
        return
    lines = [_renamed(line, renamed) for line in source.read_text("utf-8").split("\n") if line]
    known = captions.decode(target.read_bytes())[0].rstrip("\n").split("\n") if target.exists() else []
    files.write(target, "\n".join([*known, *lines, ""]))


def _renamed(line: str, renamed: Mapping[str, str]) -> str:
    """A line of a table with the picture's new name."""
    try:
        entry = json.loads(line)
        key = next(key for key in caption_tables.NAMES if key in entry)
        return json.dumps(entry | {key: renamed[entry[key]]}, ensure_ascii=False)
    except (ValueError, TypeError, KeyError, StopIteration, RecursionError):
        return line  # it names no picture that was added: the scan reports it


def _choices(stage: Path, renamed: Mapping[str, str]) -> tuple[Preparation, list[Problem]]:
    found, faults = preparation.read(stage)
    crops = {renamed[name]: crop for name, crop in found.crops.items() if name in renamed}
    out = frozenset(renamed[name] for name in found.left_out if name in renamed)
    return Preparation(crops, out, found.folders), faults
