"""``convert``: an adapter in another program's format, with a proof that it arrives unchanged."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lora_studio.adapters.metadata import Privacy
from lora_studio.cli import adapters as shared
from lora_studio.cli.options import AsJson, of_class, required, tell
from lora_studio.errors import AdapterError, SettingsError

if TYPE_CHECKING:
    from lora_studio.adapters import Adapter
    from lora_studio.adapters.proof import Export


@dataclass
class ConvertOptions:
    """The options of ``convert``."""

    file: shared.Source = required()
    to: Annotated[
        Literal["kohya", "diffusers", "peft"],
        typer.Option(help="kohya: what ComfyUI, Forge and A1111 load. peft: a folder."),
    ] = "kohya"
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="Where to save it.", show_default=False)] = (
        required()
    )
    dtype: shared.DType = None
    privacy: Annotated[
        Privacy,
        typer.Option(
            help="What the file says about its training: nothing, what its user needs to know, or the whole recipe."
        ),
    ] = Privacy.FULL
    targets: Annotated[
        list[str],
        typer.Option(
            "--target",
            help="Programs to prove it for: comfyui, forge, diffusers, peft; may be repeated.",
            show_default="those that read the format",
        ),
    ] = field(default_factory=list)
    base: Annotated[
        str, typer.Option(help="The base model. Only a DoRA needs it, which is converted to a plain LoRA.")
    ] = ""
    rank: Annotated[
        int,
        typer.Option(
            min=0, max=4096, help="Rank of the plain LoRA that a DoRA is converted to; 0 uses twice the DoRA's."
        ),
    ] = 0
    keep_dora: Annotated[
        bool,
        typer.Option(
            "--keep-dora",
            help="Keep a DoRA, in a file from which ComfyUI and Forge compute its exact change; needs --base.",
        ),
    ] = False
    as_json: AsJson = False


@of_class(ConvertOptions)
def convert(options: ConvertOptions) -> None:
    """Save an adapter in another format, and prove that it arrives unchanged."""
    source, path = shared.existing(options.file), shared.destination(options.out, folder=options.to == "peft")

    from lora_studio import adapters
    from lora_studio.adapters import foreign

    try:
        adapter = adapters.read(source)
        export = _export(options, adapter, path)
    except AdapterError as error:
        for line in getattr(error, "__notes__", ()):
            print(line, file=sys.stderr)
        raise
    result = {
        "file": path,
        "format": options.to,
        "privacy": options.privacy,
        "residual": export.residual,
        "proof": export.proof.data(),
        "warning": foreign.contradiction(adapter.metadata, adapter.family),
    }
    lines = [
        *export.proof.lines(),
        *([f"Warning: {result['warning']}"] if result["warning"] else []),
        *(
            [f"The plain LoRA differs from the DoRA by {export.residual:.2g} of the DoRA's change."]
            if export.residual
            else []
        ),
        f"Saved: {path}",
    ]
    tell(result, lines, options.as_json)


def _export(options: ConvertOptions, adapter: Adapter, path: Path) -> Export:
    from lora_studio.adapters import merge, proof

    weights = None
    if options.keep_dora and options.to != "kohya":
        raise SettingsError(
            "Only a kohya file can keep a DoRA.", where="--keep-dora", do="Leave it out, or convert to kohya."
        )
    if adapter.kind.needs_base:
        if not options.base:
            raise SettingsError(
                "This is a DoRA. Converting it to a plain LoRA needs its base model.",
                where="--base",
                do="Name the base model that it was trained on.",
            )
        weights = merge.weight_reader(shared.base_path(options.base), adapter.family)
    return proof.export(
        adapter,
        path,
        options.to,
        dtype=shared.torch_dtype(options.dtype),
        targets=tuple(options.targets),
        privacy=options.privacy,
        weights=weights,
        rank=options.rank or 2 * adapter.rank,
        keep_dora=options.keep_dora,
    )
