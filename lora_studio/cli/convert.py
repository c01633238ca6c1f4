"""``convert``: an adapter in another program's format, with a proof that it arrives unchanged."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lora_studio.adapters.metadata import Privacy
from lora_studio.cli import adapters as shared
from lora_studio.cli.options import AsJson, of_class, required, tell
from lora_studio.errors import AdapterError, SettingsError
from lora_studio.language import tr

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
            help="Programs to prove it for: comfyui, forge, a1111, diffusers, peft; may be repeated.",
            show_default="those that read the format",
        ),
    ] = field(default_factory=list)
    base: Annotated[
        str, typer.Option(help="The base model, on which the change of a DoRA, an OFT and an (IA)³ depends.")
    ] = ""
    rank: Annotated[
        int,
        typer.Option(
            min=0,
            max=4096,
            help="Rank of the plain LoRA that another kind is converted to; 0 uses twice a DoRA's, 64 for an OFT or "
            "(IA)³, and all of a LoHa or LoKr.",
        ),
    ] = 0
    form: Annotated[
        Literal["own", "lora", "full"] | None,
        typer.Option(
            help="own: keep its kind. lora: a plain LoRA, which every program reads. full: the whole difference from "
            "the base model, exact and large. Only a kohya file can be other than lora.",
            show_default="own for a LoHa, a LoKr and a full difference",
        ),
    ] = None
    keep_dora: Annotated[bool, typer.Option("--keep-dora", help="The same as --form own.", hidden=True)] = False
    words: Annotated[
        Literal["bundled", "none", "only"],
        typer.Option(
            help="Words that the adapter has learned: in the file beside its layers, left out, or alone, as an "
            "embedding for A1111 and ComfyUI, which call it by the file's name."
        ),
    ] = "bundled"
    as_json: AsJson = False


@of_class(ConvertOptions)
def convert(options: ConvertOptions) -> None:
    """Save an adapter in another format, and prove that it arrives unchanged."""
    source, path = shared.existing(options.file), shared.destination(options.out, folder=options.to == "peft")

    from lora_studio import adapters
    from lora_studio.adapters import foreign

    try:
        adapter = _chosen(adapters.read(source), options.words)
        export = _export(options, adapter, path)
    except AdapterError as error:
        for line in getattr(error, "__notes__", ()):
            print(line, file=sys.stderr)
        raise
    title = adapter.kind.title
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
            [f"The plain LoRA differs from the {title} by {export.residual:.2g} of the {title}'s change."]
            if export.residual
            else []
        ),
        f"Saved: {path}",
    ]
    tell(result, lines, options.as_json)


def _chosen(adapter: Adapter, words: str) -> Adapter:
    """The adapter with what is wanted of it."""
    if words == "only" and not adapter.embeddings:
        raise AdapterError("The adapter has learned no words.", where="--words", do="Leave --words out.")
    if words == "none":
        if not adapter.changes:
            do = "Leave --words out."
            raise AdapterError("The file holds a learned word and nothing else.", where="--words", do=do)
        return replace(adapter, embeddings={})
    return replace(adapter, factors={}, outputs={}) if words == "only" else adapter


def _export(options: ConvertOptions, adapter: Adapter, path: Path) -> Export:
    from lora_studio.adapters import merge, proof

    weights = None
    form = "own" if options.keep_dora else options.form
    if form not in (None, "lora") and options.to != "kohya":
        raise SettingsError(
            f"A file for {options.to} holds a plain LoRA.",
            where="--keep-dora" if options.keep_dora else "--form",
            do="Leave it out, or convert to kohya.",
        )
    if adapter.kind.needs_base:
        if not options.base:
            raise SettingsError(
                tr("This is {kind}. Converting it needs its base model.", kind=adapter.kind.a_title),
                where="--base",
                do=tr("Name the base model that it was trained on."),
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
        rank=options.rank,
        form=form,
    )
