"""``extract``: an adapter of the difference between two checkpoints."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_studio.cli import adapters as shared
from lora_studio.cli.adapters import Number
from lora_studio.cli.options import AsJson, tell

if TYPE_CHECKING:
    from lora_studio.adapters.extract import Extraction

_MODEL = "a diffusers folder, a .safetensors checkpoint, the starter, or a hub name that was downloaded."


def extract(
    base: Annotated[str, typer.Argument(metavar="BASE", help=f"The model before it was trained: {_MODEL}")],
    tuned: Annotated[str, typer.Argument(metavar="TUNED", help="The model after it was trained, likewise.")],
    rank: Annotated[int, typer.Option(help="Rank of linear layers.", min=1, max=4096)] = 32,
    conv_rank: Annotated[
        int | None,
        typer.Option(
            help="Rank of convolutions; 0 leaves them out.", min=0, max=4096, show_default="that of linear layers"
        ),
    ] = None,
    text: Annotated[bool, typer.Option("--text/--no-text", help="Whether text encoders are compared too.")] = True,
    dtype: Annotated[Number, typer.Option(help="Number format of the weights.")] = Number.FP16,
    out: shared.Saved = None,
    as_json: AsJson = False,
) -> None:
    """Make an adapter of what training changed between two checkpoints."""
    first, second = shared.base_path(base), shared.base_path(tuned)
    path = shared.destination(out) if out else None
    found = _work(first, second, (rank, rank if conv_rank is None else conv_rank), text)
    about = f"Extracted from {second.name}, which was trained from {first.name}."
    texts = {"ss_sd_model_name": first.name, "modelspec.description": about}
    adapter = replace(found.adapter, metadata={**found.adapter.metadata, **texts})
    export = shared.save(adapter, path, dtype) if path else None
    size = path.stat().st_size if path else shared.bytes_of(adapter, dtype)
    result = {
        "file": path,
        "family": found.family,
        "rank": adapter.rank,
        "modules": len(adapter.factors),
        "size": size,
        "kept": found.kept,
        "kept_by_block": found.kept_by_block,
        "other_tensors": len(found.others),
        "other_share": found.beyond,
        "alone": found.alone,
        "proof": export.proof.data() if export else [],
    }
    saved = f"Saved: {path}" if path else "Nothing is saved without -o."
    tell(result, [*_lines(result), *(export.proof.lines() if export else []), saved], as_json)


def _work(base: Path, tuned: Path, ranks: tuple[int, int], text: bool) -> Extraction:
    """Compares the two, with progress on a terminal."""
    from lora_studio.adapters import extract as algebra

    found = algebra.Extraction()
    for progress in algebra.extract(base, tuned, algebra.Ranks(*ranks), found, text):
        if sys.stderr.isatty():
            end = "\n" if progress.done == progress.total else ""
            print(f"\r{progress.done} of {progress.total} layers", end=end, file=sys.stderr, flush=True)
    return found


def _lines(result: dict[str, Any]) -> list[str]:
    modules, size = f"{result['modules']} layers", shared.megabytes(result["size"])
    lines = [
        f"Rank {result['rank']}, {modules}, {size}.",
        f"It keeps {shared.percent(result['kept'])} of what the layers changed:",
        *(f"  {block:15} {shared.percent(kept)}" for block, kept in result["kept_by_block"].items()),
    ]
    if result["other_tensors"]:
        share = shared.percent(result["other_share"])
        lines.append(
            f"{result['other_tensors']} norms, biases and other tensors changed too, {share} of the whole change. "
            "No adapter can hold them."
        )
    if alone := result["alone"]:
        lines.append(
            f"{len(alone)} layers are left out, since only one of the models has them: {', '.join(alone[:3])}…."
        )
    return lines
