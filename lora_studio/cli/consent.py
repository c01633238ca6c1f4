"""Asks once whether the studio may write in a folder of hers."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lora_studio.curation.workbench import Workbench
from lora_studio.errors import DatasetError

Allowed = Annotated[bool, typer.Option("--yes", help="Allow the studio to write captions here, without being asked.")]


def agree(bench: Workbench, yes: bool) -> None:
    """Asks whether the studio may write in the folder of ``bench``, unless it was allowed before or with ``yes``.

    Raises:
        DatasetError: there is nobody to ask.
        typer.Abort: she said no.
    """
    if bench.allowed:
        return
    told = (
        f"The studio writes into {bench.folder}: captions where they are now, and a folder .lora_studio for undo and "
        "the originals. Pictures are never changed."
    )
    if not yes and not sys.stdin.isatty():
        raise DatasetError(
            "The studio was not allowed yet to write in this folder.", where=bench.folder, do="Add --yes."
        )
    if not yes:
        print(told, file=sys.stderr)
        typer.confirm("Allow it?", abort=True, err=True)
    bench.allow()
