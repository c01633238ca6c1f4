"""``strip``: one adapter at increasing weights, side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from lora_studio.cli import drawing
from lora_studio.cli.generate import parse_adapter
from lora_studio.cli.grid import named
from lora_studio.cli.options import of_class, required
from lora_studio.sampling.axes import Axis, parse, spread


@dataclass
class StripOptions(drawing.SheetOptions):
    """The options of ``strip``."""

    file: Annotated[Path, typer.Argument(metavar="FILE", help="An adapter.", show_default=False)] = required()
    start: Annotated[float, typer.Option("--from", min=-10, max=10, help="The first weight.")] = 0.0
    stop: Annotated[float, typer.Option("--to", min=-10, max=10, help="The last weight.")] = 1.5
    count: Annotated[int, typer.Option(min=1, max=100, help="How many weights.")] = 7
    others: Annotated[
        list[str],
        typer.Option("--adapter", metavar="FILE[:WEIGHT]", help="Another adapter, at a fixed weight; may be repeated."),
    ] = field(default_factory=list)
    y: Annotated[
        str, typer.Option("--y", metavar="KIND=A,B,…", help="A row for each of these, as in grid: seed=1,2,3.")
    ] = ""


@of_class(StripOptions)
def strip(options: StripOptions) -> None:
    """Draw an adapter at several weights, side by side in one sheet with its recipe."""
    adapters = drawing.SheetAdapters()
    name = adapters.add(parse_adapter(str(options.file), "FILE")[0], 1.0)
    for text in options.others:
        adapters.add(*parse_adapter(text))
    rows = named(parse(options.y, "--y"), adapters, "--y") if options.y else None
    drawing.draw(
        options, "strip", Axis("weight", spread(options.start, options.stop, options.count), name), rows, adapters
    )
