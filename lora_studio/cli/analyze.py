"""``analyze``: what an adapter does to the model, in words and in numbers; and how two compare."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_studio import files
from lora_studio.cli import adapters as shared
from lora_studio.cli.options import AsJson, tell

if TYPE_CHECKING:
    from lora_studio.adapters.analysis import Analysis


def analyze(
    file: shared.Source,
    other: Annotated[
        Path | None,
        typer.Argument(metavar="[OTHER]", help="A second adapter to compare the first with.", show_default=False),
    ] = None,
    base: Annotated[str, typer.Option(help="The base model, to report the change relative to its weights too.")] = "",
    plots: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Draw heatmap, spectrum and histogram as PNG into this folder.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report where and how much an adapter changes the model, and how far its rank can be reduced."""
    path, second = shared.existing(file), shared.existing(other) if other else None
    model = shared.base_path(base) if base else None

    from lora_studio import adapters
    from lora_studio.adapters import analysis, merge

    adapter = adapters.read(path)
    found = analysis.analyze(adapter, merge.weight_reader(model, adapter.family) if model else None)
    lines, result = [*found.words, "", *_table(found)], {"file": path, **found.model_dump()}
    if second:
        compared = analysis.compare(adapter, adapters.read(second), (path.stem, second.stem))
        lines, result = (
            [*lines, "", *compared.words],
            {**result, "comparison": {"file": second, **compared.model_dump()}},
        )
    drawn = _drawn(found, plots.expanduser().resolve(), path.stem) if plots else []
    tell({**result, "plots": drawn}, [*lines, *([""] if drawn else []), *map(str, drawn)], as_json)


def _drawn(found: Analysis, folder: Path, name: str) -> list[str]:
    """Saves the three plots, each under a name that is not taken."""
    from lora_studio.adapters import plots

    pictures = {
        "heatmap": plots.heatmap(found.heatmap),
        "spectrum": plots.spectrum(found),
        "histogram": plots.histogram(found.histogram),
    }
    paths = [files.free(folder / f"{name}-{plot}.png") for plot in pictures]
    for path, data in zip(paths, pictures.values(), strict=True):
        files.write(path, data)
    return [str(path) for path in paths]


def _table(found: Analysis) -> list[str]:
    """One line per block: its modules, its share of the change, the norm of ΔW, and the rank that keeps 99 % of it."""
    blocks: dict[str, list[Any]] = defaultdict(list)
    for module in found.modules:
        blocks[module.block].append(module)
    width = max(len("block"), *map(len, blocks))
    lines = [f"{'block':{width}}  modules  share of change     ‖ΔW‖  rank for 99 %"]
    for block, modules in blocks.items():
        energy = sum(module.norm**2 for module in modules)
        share = energy / found.norm**2 if found.norm else 0.0
        rank = max(module.rank_99 for module in modules)
        lines.append(f"{block:{width}}  {len(modules):7}  {share:15.1%}  {math.sqrt(energy):7.3g}  {rank:13}")
    return lines
