"""``strip``: one adapter at rising weights, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lora_studio.cli import drawing
from lora_studio.cli.generate import parse_adapter
from lora_studio.cli.grid import named
from lora_studio.cli.options import of_class
from lora_studio.sampling.axes import Axis, parse, spread


@dataclass
class Order(drawing.Sheet):
    """What ``strip`` is asked for."""

    file: Annotated[Path, typer.Argument(metavar="FILE", help="An adapter.", show_default=False)] = ...
    start: Annotated[float, typer.Option("--from", min=-10, max=10, help="The first weight.")] = 0.0
    stop: Annotated[float, typer.Option("--to", min=-10, max=10, help="The last weight.")] = 1.5
    count: Annotated[int, typer.Option(min=1, max=100, help="How many weights.")] = 7
    others: Annotated[
        list[str],
        typer.Option(
            "--adapter", metavar="FILE[:WEIGHT]", help="Another adapter, whose weight stays; may be repeated."
        ),
    ] = ()
    y: Annotated[
        str, typer.Option("--y", metavar="KIND=A,B,…", help="A row for each of these, as grid has it: seed=1,2,3.")
    ] = ""


@of_class(Order)
def strip(order: Order) -> None:
    """Draw an adapter at several weights, side by side in one sheet that carries its recipe."""
    cast = drawing.Cast()
    name = cast.add(parse_adapter(str(order.file), "FILE")[0], 1.0)
    for text in order.others:
        cast.add(*parse_adapter(text))
    rows = named(parse(order.y, "--y"), cast, "--y") if order.y else None
    drawing.draw(order, "strip", Axis("weight", spread(order.start, order.stop, order.count), name), rows, cast)
