"""What the commands share that change a folder of pictures: they ask once, and every change can be undone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_studio import runs
from lora_studio.cli.options import tell
from lora_studio.curation.workbench import Done, Workbench
from lora_studio.errors import DatasetError

if TYPE_CHECKING:
    from lora_studio.dataset.items import Dataset

Allowed = Annotated[bool, typer.Option("--yes", help="Allow the studio to write in the folder, without being asked.")]


def workbench(folder: Path, outputs: Path) -> Workbench:
    """What changes ``folder``. What an interrupted step had changed there is put back and told.

    Raises:
        DatasetError: there is no such folder.
    """
    root = folder.expanduser()
    if not root.is_dir():
        raise DatasetError(f"There is no folder {folder}.", do="Name the folder of your pictures.")
    bench = Workbench(root, own=root.resolve().is_relative_to(runs.pictures_folder(outputs).resolve()))
    if settled := bench.settle():
        print(" ".join((settled.sentence, *settled.notes)), file=sys.stderr)
    return bench


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
