"""``convert``: an adapter in another program's format, with the proof that it arrives unchanged."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lora_studio.adapters.metadata import Privacy
from lora_studio.cli import adapters as shared
from lora_studio.cli.options import AsJson, of_class, tell
from lora_studio.errors import AdapterError, SettingsError

if TYPE_CHECKING:
    from lora_studio.adapters import Adapter
    from lora_studio.adapters.proof import Export


@dataclass
class Order:
    """What ``convert`` is asked for."""

    file: shared.Source = ...
    to: Annotated[
        Literal["kohya", "diffusers", "peft"],
        typer.Option(help="kohya: what ComfyUI, Forge and A1111 load. peft: a folder."),
    ] = "kohya"
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="Where to save it.", show_default=False)
    ] = ...
    dtype: shared.DType = None
    privacy: Annotated[
        Privacy,
        typer.Option(
            help="What the file tells of its making: nothing, what its user wants to know, or the whole recipe."
        ),
    ] = Privacy.FULL
    targets: Annotated[
        list[str],
        typer.Option(
            "--target",
            help="Programs to prove it for: comfyui, forge, diffusers, peft; may be repeated.",
            show_default="those that read the format",
        ),
    ] = ()
    base: Annotated[str, typer.Option(help="The base model, which only a DoRA needs: it becomes a plain LoRA.")] = ""
    rank: Annotated[
        int, typer.Option(min=0, max=4096, help="Rank of the plain LoRA that a DoRA becomes; 0 takes twice its own.")
    ] = 0
    as_json: AsJson = False


@of_class(Order)
def convert(order: Order) -> None:
    """Save an adapter in another format, and prove that it arrives unchanged."""
    source, path = shared.existing(order.file), shared.destination(order.out, folder=order.to == "peft")

    from lora_studio import adapters

    try:
        export = _export(order, adapters.read(source), path)
    except AdapterError as error:
        for line in getattr(error, "__notes__", ()):
            print(line, file=sys.stderr)
        raise
    result = {
        "file": path,
        "format": order.to,
        "privacy": order.privacy,
        "residual": export.residual,
        "proof": export.proof.data(),
    }
    lines = [
        *export.proof.lines(),
        *(
            [f"As plain LoRA it differs from the DoRA by {export.residual:.2g} of its change."]
            if export.residual
            else []
        ),
        f"Saved: {path}",
    ]
    tell(result, lines, order.as_json)


def _export(order: Order, adapter: Adapter, path: Path) -> Export:
    from lora_studio.adapters import merge, proof

    weights = None
    if adapter.kind.needs_base:
        if not order.base:
            raise SettingsError(
                "This is a DoRA, which becomes a plain LoRA only with its base model at hand.",
                where="--base",
                do="Name the base model that it was trained on.",
            )
        weights = merge.weight_reader(shared.base_path(order.base), adapter.family)
    return proof.export(
        adapter,
        path,
        order.to,
        dtype=shared.torch_dtype(order.dtype),
        targets=tuple(order.targets),
        privacy=order.privacy,
        weights=weights,
        rank=order.rank or 2 * adapter.rank,
    )
