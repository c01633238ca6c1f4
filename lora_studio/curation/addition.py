"""More pictures and captions for a dataset of the studio's own: they get names that are free, and nothing is replaced.
What comes with them in tables and choices is taken over in steps that can be undone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from lora_studio import files
from lora_studio.curation.workbench import Workbench
from lora_studio.dataset import caption_tables, intake, preparation
from lora_studio.dataset.intake import Item
from lora_studio.dataset.preparation import Preparation
from lora_studio.dataset.problems import Problem
from lora_studio.errors import DatasetError, StudioError
from lora_studio.language import tr

_STAGE = ".adding"
_ADDED = PurePosixPath("added")
"""A folder in front of new names, so that none of them goes with a file that is there."""


def add(folder: Path, uploaded: Sequence[Path | Item]) -> list[Problem]:
    """Copies the ``uploaded`` files into the dataset ``folder``, as ``intake.fill`` does into an empty one, and returns
    what was left out.

    Raises:
        DatasetError, MachineError: as ``intake.fill``, or the table of captions cannot be changed; nothing was added
            then.
        OSError: a file cannot be read or written; nothing was added.
    """
    stage = folder / _STAGE
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    moved: list[Path] = []
    try:
        problems = intake.fill(stage, uploaded)
        renamed = _new_names(folder, stage)
        for old, name in renamed.items():
            target = folder / name
            if target.exists():
                raise DatasetError(
                    tr("There is a file {name} already.", name=name), where=folder, do=tr("Rename it, then add again.")
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(stage / old, target)
            moved.append(target)
        if captions := list(_captions(stage, renamed)):
            Workbench(folder, own=True).add_captions(captions)
    except (StudioError, OSError):
        for target in moved:
            files.unlink(target)
        raise
    else:
        return problems + _take_over(folder, stage, renamed)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _new_names(folder: Path, stage: Path) -> dict[str, str]:
    """Files of the ``stage`` and their names in the dataset. One that a table names has none of them, even where its
    picture is gone: the new one would get its caption.
    """
    new = [name for name in _names(stage) if str(name) not in (caption_tables.JSONL, preparation.NAME)]
    present = [name for name in _names(folder) if name.parts[0] != preparation.FOLDER]
    table = folder / caption_tables.JSONL
    known = caption_tables.read(caption_tables.JSONL, table.read_bytes()).captions if table.is_file() else {}
    present += [name for name in map(PurePosixPath, known) if name not in present]
    free = intake.new_names([*present, *(_ADDED / name for name in new)])[len(present) :]
    return dict(zip(map(str, new), map(str, free), strict=True))


def _names(folder: Path) -> Iterator[PurePosixPath]:
    """All files of a dataset, without hidden folders but the one of choices."""
    for parent, inner, found in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith(".") or name == preparation.FOLDER)
        yield from (PurePosixPath(Path(parent, name).relative_to(folder).as_posix()) for name in sorted(found))


def _captions(stage: Path, renamed: Mapping[str, str]) -> Iterator[str]:
    """The lines of the upload's table, with the pictures' new names."""
    source = stage / caption_tables.JSONL
    if source.exists():
        yield from (_renamed(line, renamed) for line in source.read_text("utf-8").split("\n") if line)


def _renamed(line: str, renamed: Mapping[str, str]) -> str:
    """A line of a table with the picture's new name."""
    try:
        entry = json.loads(line)
        key = next(key for key in caption_tables.NAMES if key in entry)
        return json.dumps(entry | {key: renamed[entry[key]]}, ensure_ascii=False)
    except (ValueError, TypeError, KeyError, StopIteration, RecursionError):
        return line  # it names no picture that was added: the scan reports it


def _take_over(folder: Path, stage: Path, renamed: Mapping[str, str]) -> list[Problem]:
    """Makes the choices that came along; returns what of them could not be made. The pictures are there by now."""
    found, problems = preparation.read(stage)
    crops = {renamed[name]: crop for name, crop in found.crops.items() if name in renamed}
    out = frozenset(renamed[name] for name in found.left_out if name in renamed)
    choices = Preparation(crops, out, found.folders)
    if choices == Preparation():
        return problems
    try:
        for note in Workbench(folder, own=True).add_choices(choices).notes:
            problems.append(Problem("warning", "preparation", preparation.NAME, note, ""))
    except StudioError as error:
        what = tr("Crops and choices of the added pictures were not taken over: {what}", what=error.what)
        return [*problems, Problem("warning", "preparation", preparation.NAME, what, error.do)]
    return problems
