"""``resize``: makes an adapter smaller."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated

import typer

from lora_studio.cli import adapters as shared
from lora_studio.cli.options import AsJson, tell
from lora_studio.errors import SettingsError

KEY = "lora_studio.resized"
"""The header's entry that records it, as JSON: what was asked for."""


def resize(
    file: shared.Source,
    rank: Annotated[int | None, typer.Option(help="The highest rank of any module.")] = None,
    energy: Annotated[
        float | None,
        typer.Option(help="Keep this share of each module's change, for example 0.99, at the smallest rank."),
    ] = None,
    size: Annotated[
        float | None, typer.Option(metavar="MB", help="The best adapter that fits into a file of this many megabytes.")
    ] = None,
    dtype: shared.DType = None,
    out: shared.Saved = None,
    as_json: AsJson = False,
) -> None:
    """Make an adapter smaller: by rank, by the share it keeps, or by size."""
    asked = {name: value for name, value in {"rank": rank, "energy": energy, "size": size}.items() if value is not None}
    if len(asked) != 1:
        raise SettingsError(
            "One of --rank, --energy and --size is needed."
            if not asked
            else "--rank, --energy and --size exclude each other.",
            where="resize",
            do="Write for example: python3 app.py resize style.safetensors --energy 0.99 -o small.safetensors",
        )
    source, path = shared.existing(file), shared.destination(out) if out else None

    from lora_studio import adapters
    from lora_studio.adapters import resize as algebra

    read = adapters.read(source)
    # recorded before resizing, so that a size in MB includes the header
    before = replace(read, metadata={"modelspec.title": source.stem, **read.metadata, KEY: json.dumps(asked)})
    if rank is not None:
        made = algebra.to_rank(before, rank)
    elif energy is not None:
        made = algebra.to_energy(before, energy)
    else:
        made = algebra.to_size(before, asked["size"], shared.torch_dtype(dtype))
    export = shared.save(made.adapter, path, dtype) if path else None
    sizes = shared.bytes_of(read, None), path.stat().st_size if path else shared.bytes_of(made.adapter, dtype)
    result = {
        "file": path,
        "rank_before": before.rank,
        "rank": made.adapter.rank,
        "size_before": sizes[0],
        "size": sizes[1],
        "residual": made.residual,
        "kept": made.kept,
        "residuals": made.residuals,
        "proof": export.proof.data() if export else [],
    }
    lines = [
        f"Rank {before.rank} to {made.adapter.rank}, {shared.megabytes(sizes[0])} to {shared.megabytes(sizes[1])}.",
        f"It keeps {shared.percent(made.kept)} of the change (residual {made.residual:.2g}).",
        *(export.proof.lines() if export else []),
        f"Saved: {path}" if path else "Nothing is saved without -o.",
    ]
    tell(result, lines, as_json)
