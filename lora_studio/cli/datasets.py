"""What the commands share that change a folder of pictures: they ask once, and every change can be undone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lora_studio import runs
from lora_studio.cli.options import tell
from lora_studio.curation.workbench import Done, Workbench
from lora_studio.errors import DatasetError

if TYPE_CHECKING:
    from lora_studio.dataset.items import Dataset


def workbench(folder: Path, outputs: Path) -> Workbench:
    """What changes ``folder``.

    Raises:
        DatasetError: there is no such folder.
    """
    root = folder.expanduser()
    if not root.is_dir():
        raise DatasetError(f"There is no folder {folder}.", do="Name the folder of your pictures.")
    return Workbench(root, own=root.resolve().is_relative_to(runs.pictures_folder(outputs).resolve()))


def scan(root: Path, outputs: Path, nested: bool) -> Dataset:
    """The dataset in ``root``.

    Raises:
        DatasetError: it holds no picture that can be read.
    """
    from lora_studio.dataset import folder

    dataset = folder.scan(root, runs.cache_folder(outputs), nested=nested)
    if dataset.blocking and not dataset.left_out and not dataset.pictures:
        raise DatasetError(dataset.blocking[0].what, where=root, do=dataset.blocking[0].do)
    return dataset


def agree(bench: Workbench, yes: bool) -> None:
    """Asks once whether the studio may write in a folder of hers.

    Raises:
        DatasetError: nobody can be asked.
        typer.Abort: she does not agree.
    """
    if bench.allowed:
        return
    if not yes and not sys.stdin.isatty():
        raise DatasetError(
            "The studio was not allowed yet to write in this folder.", where=bench.folder, do="Add --yes."
        )
    if not yes:
        told = (
            f"The studio writes into {bench.folder}: captions where they are now, masks beside the pictures, and a "
            "folder .lora_studio for undo and the originals. Pictures are never changed."
        )
        print(told, file=sys.stderr)
        typer.confirm("Allow it?", abort=True, err=True)
    bench.allow()


def tell_done(done: Done, as_json: bool) -> None:
    """Prints what a step did."""
    result = {"done": done.sentence, "pictures": list(done.names), "notes": list(done.notes)}
    tell(result, [done.sentence, *done.notes], as_json)
