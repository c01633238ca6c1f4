"""``grid``: pictures in columns and rows that vary two things."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lora_studio import runs
from lora_studio.cli import drawing
from lora_studio.cli.generate import parse_adapter
from lora_studio.cli.options import of_class
from lora_studio.errors import RunError, SettingsError
from lora_studio.sampling.axes import KINDS, Axis, parse

ADAPTER = "adapter.safetensors"
"""A checkpoint's file that can be drawn with."""


@dataclass
class Order(drawing.Sheet):
    """What ``grid`` is asked for."""

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
            help="An adapter of every picture, and its weight if it is not 1; may be repeated.",
        ),
    ] = ()


@of_class(Order)
def grid(order: Order) -> None:
    """Draw a grid that varies two of prompt, seed, adapter, weight, checkpoint, guidance and steps: one sheet that
    carries its recipe.
    """
    if not order.x:
        raise SettingsError(
            "The columns are not named.",
            where="--x",
            do="Write for example: python3 app.py grid --x weight=0,0.5,1 --y adapter=a.safetensors,b.safetensors …",
        )
    cast = drawing.Cast()
    for text in order.adapters:
        cast.add(*parse_adapter(text))
    x = named(parse(order.x, "--x"), cast, "--x")
    y = named(parse(order.y, "--y"), cast, "--y") if order.y else None
    drawing.draw(order, "grid", x, y, cast)


def named(axis: Axis, cast: drawing.Cast, where: str) -> Axis:
    """``axis`` with its adapters in ``cast``, and their names there in place of files.

    Raises:
        AdapterError, RunError: there is no such file or run.
    """
    if axis.kind == "adapter":
        return Axis(axis.kind, tuple(cast.add(*parse_adapter(str(value), where)) for value in axis.values))
    if axis.kind == "checkpoint":
        folders = [folder for value in axis.values for folder in checkpoints(str(value), where)]
        return Axis(
            axis.kind,
            tuple(cast.add(folder / ADAPTER, 1.0, f"{folder.parent.parent.name} {folder.name}") for folder in folders),
        )
    if axis.subject and axis.subject not in cast.placed:
        path, weight = parse_adapter(axis.subject, where)
        name = next((name for name, (known, _) in cast.placed.items() if known == path), "")
        return Axis(axis.kind, axis.values, name or cast.add(path, weight))
    return axis


def checkpoints(text: str, where: str) -> list[Path]:
    """The folders of a run's checkpoints by step, or the one folder that ``text`` names.

    Raises:
        RunError: there is neither, or the run has none.
    """
    folder = Path(text).expanduser()
    if (folder / ADAPTER).is_file() and not (folder / "settings.toml").is_file():
        return [folder.resolve()]
    run = runs.find(text)
    steps = sorted(
        (int(tail), path)
        for path in run.checkpoints.glob("step-*")
        if (tail := path.name.removeprefix("step-")).isdigit() and (path / ADAPTER).is_file()
    )
    if not steps:
        raise RunError(
            f"The run {run.name} has no checkpoint.", where=where, do="Name another run, or a checkpoint's folder."
        )
    return [path.resolve() for _, path in steps]
