"""``grid``: images in columns and rows that vary two things."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from lora_studio import runs
from lora_studio.cli import drawing
from lora_studio.cli.generate import parse_adapter
from lora_studio.cli.options import of_class
from lora_studio.errors import RunError, SettingsError
from lora_studio.runs import checkpoints as states
from lora_studio.sampling.axes import KINDS, Axis, parse

ADAPTER = "adapter.safetensors"
"""The adapter in a checkpoint's folder."""


@dataclass
class GridOptions(drawing.SheetOptions):
    """The options of ``grid``."""

    x: Annotated[
        str,
        typer.Option(
            "--x", metavar="KIND=A,B,…", help=f"The columns: {', '.join(KINDS)}. weight:FILE=… names the adapter."
        ),
    ] = ""
    y: Annotated[str, typer.Option("--y", metavar="KIND=A,B,…", help="The rows.")] = ""
    adapters: Annotated[
        list[str],
        typer.Option(
            "--adapter",
            metavar="FILE[:WEIGHT]",
            help="An adapter for every image, and its weight if it is not 1; may be repeated.",
        ),
    ] = field(default_factory=list)


@of_class(GridOptions)
def grid(options: GridOptions) -> None:
    """Draw a grid that varies two of prompt, seed, adapter, weight, checkpoint, guidance and steps: one sheet with its
    recipe.
    """
    if not options.x:
        raise SettingsError(
            "There are no columns.",
            where="--x",
            do="Write for example: python3 app.py grid --x weight=0,0.5,1 --y adapter=a.safetensors,b.safetensors …",
        )
    adapters = drawing.SheetAdapters()
    for text in options.adapters:
        adapters.add(*parse_adapter(text))
    x = named(parse(options.x, "--x"), adapters, "--x")
    y = named(parse(options.y, "--y"), adapters, "--y") if options.y else None
    drawing.draw(options, "grid", x, y, adapters)


def named(axis: Axis, adapters: drawing.SheetAdapters, where: str) -> Axis:
    """``axis`` with its files added to ``adapters``, and replaced by their names there.

    Raises:
        AdapterError, RunError: there is no such file or run.
    """
    if axis.kind == "adapter":
        return Axis(axis.kind, tuple(adapters.add(*parse_adapter(str(value), where)) for value in axis.values))
    if axis.kind == "checkpoint":
        folders = [folder for value in axis.values for folder in checkpoints(str(value), where)]
        return Axis(
            axis.kind,
            tuple(
                adapters.add(folder / ADAPTER, 1.0, f"{folder.parent.parent.name} {folder.name}") for folder in folders
            ),
        )
    if axis.subject and axis.subject not in adapters.placed:
        path, weight = parse_adapter(axis.subject, where)
        name = next((name for name, (known, _) in adapters.placed.items() if known == path), "")
        return Axis(axis.kind, axis.values, name or adapters.add(path, weight))
    return axis


def checkpoints(text: str, where: str) -> list[Path]:
    """The folders of a run's checkpoints, sorted by step, or the one folder that ``text`` names.

    Raises:
        RunError: there is no such run or folder, or the run has no checkpoints.
    """
    folder = Path(text).expanduser()
    if (folder / ADAPTER).is_file() and not (folder / "settings.toml").is_file():
        return [folder.resolve()]
    run = runs.find(text)
    found = [saved.folder.resolve() for saved in states.listed(run)]
    if not found:
        raise RunError(
            f"The run {run.name} has no saved states.", where=where, do="Name another run, or a saved state's folder."
        )
    return found
