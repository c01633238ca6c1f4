"""Pictures that were dropped on the page, pasted or chosen, one by one, as folders or as ZIPs: they become a dataset of
the studio's own, or are added to one.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lora_studio import files, runs
from lora_studio.curation import addition
from lora_studio.dataset import intake, preparation
from lora_studio.dataset.intake import Item
from lora_studio.dataset.problems import Problem
from lora_studio.errors import DatasetError
from lora_studio.language import tr
from lora_studio.ui import images

MOST_FILES = 5_000


class Kept(NamedTuple):
    """The dataset's folder, and what of the upload was left out."""

    folder: Path
    left_out: list[Problem]


def received(sent: object, outputs: Path) -> list[Item]:
    """The files that the browser says it uploaded: ``[{"path": …, "name": "folder/a.png"}, …]``.

    Raises:
        DatasetError: one is no upload of this studio: a page of another site may have written the list.
    """
    here = images.uploads(outputs).resolve()
    found = []
    for one in sent if isinstance(sent, list) else []:
        path = Path(str(one["path"])).resolve()
        if not path.is_relative_to(here) or not path.is_file():
            raise DatasetError(
                tr("A file of the upload is missing."), where=str(one["name"]), do=tr("Upload it again.")
            )
        found.append(Item(path, _name(str(one["name"]), path)))
    return found


def _name(told: str, path: Path) -> PurePosixPath:
    parts = [part for part in told.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return PurePosixPath(*(part for part in parts if files.is_text(part))) if parts else PurePosixPath(path.name)


def suggested(items: Sequence[Item]) -> str:
    """A name for the dataset: the folder that holds all of it, or what the files' names have in common."""
    tops = {item.name.parts[0] for item in items if len(item.name.parts) > 1}
    if len(tops) == 1 and all(len(item.name.parts) > 1 for item in items):
        return files.safe_name(tops.pop(), spaces=True)
    named = intake.suggest_name([Path(item.name.name) for item in items], time.strftime("upload-%Y-%m-%d"))
    return files.safe_name(named, spaces=True)


def own(folder: str | Path, outputs: Path) -> bool:
    """Whether the studio made this dataset."""
    return Path(folder).resolve().parent == runs.pictures_folder(outputs).resolve()


def dataset(name: str, outputs: Path) -> Path:
    """The folder of the studio's own dataset ``name``, whether it is there or not."""
    return runs.pictures_folder(outputs) / files.safe_name(name, spaces=True)


def copied(folder: str | Path, outputs: Path) -> Path:
    """A copy of a dataset among the studio's own, without what was changed in it.

    Raises:
        MachineError: the disk refuses it; nothing is left behind.
    """
    made = None
    try:
        made = runs.new_pictures(Path(folder).name, outputs)
        shutil.copytree(folder, made, dirs_exist_ok=True, ignore=shutil.ignore_patterns(preparation.FOLDER))
    except OSError as error:
        if made:
            shutil.rmtree(made, ignore_errors=True)
        raise files.refusal(error, tr("The copy could not be made"), runs.pictures_folder(outputs)) from error
    return made


def keep(uploaded: Sequence[Path | Item], outputs: Path, name: str = "") -> Kept:
    """Copies ``uploaded`` into a new folder of ``outputs`` and unpacks ZIPs into it.

    Args:
        name: of the dataset; else one is made of the files' names. A name that is taken gets a number.

    Raises:
        DatasetError: there are too many files or no picture, or a ZIP is damaged, too large, or leads out of its
            folder; nothing is left behind, here and below.
        MachineError: a file cannot be read, or the disk refuses it.
    """
    _bounded(uploaded)
    folder = None
    try:
        folder = runs.new_pictures(name or suggested(_items(uploaded)), outputs)
        return Kept(folder, intake.fill(folder, uploaded))
    except Exception as error:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise files.refusal(error, tr("The upload could not be kept"), runs.pictures_folder(outputs)) from error
        raise


def add(uploaded: Sequence[Path | Item], folder: Path) -> Kept:
    """Adds ``uploaded`` to a dataset of the studio's own.

    Raises:
        DatasetError, MachineError: as ``keep``.
    """
    _bounded(uploaded)
    try:
        return Kept(folder, addition.add(folder, uploaded))
    except OSError as error:
        raise files.refusal(error, tr("The upload could not be kept"), folder) from error


def forget(items: Iterable[Item], outputs: Path) -> None:
    """Deletes uploads that were kept or are not wanted; files of the user stay."""
    here = images.uploads(outputs).resolve()
    for item in items:
        if item.path.resolve().is_relative_to(here):
            files.unlink(item.path)


def _items(uploaded: Sequence[Path | Item]) -> list[Item]:
    return [one if isinstance(one, Item) else Item(one, PurePosixPath(one.name)) for one in uploaded]


def _bounded(uploaded: Sequence[Path | Item]) -> None:
    if len(uploaded) > MOST_FILES:
        raise DatasetError(
            tr("{count:,} files at once are too many; the limit is {most:,}.", count=len(uploaded), most=MOST_FILES),
            do=tr("Paste the path of their folder instead."),
        )
