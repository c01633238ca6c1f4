"""``blend``: several adapters become one. Its methods and their options come from ``adapters.blend_methods``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lora_studio import runs
from lora_studio.adapters import blend_methods
from lora_studio.adapters import recipe as recipes
from lora_studio.adapters.averaging import WIDTH
from lora_studio.adapters.blend_methods import METHODS, BlendParameter
from lora_studio.cli import adapters as shared
from lora_studio.cli import ingredients
from lora_studio.cli.ingredients import Chosen
from lora_studio.cli.options import AsJson, Outputs, of_class, tell
from lora_studio.errors import SettingsError
from lora_studio.language import in_sequence
from lora_studio.runs import OUTPUTS

if TYPE_CHECKING:
    from lora_studio.adapters.blend import Blended

_SUMS = ("svd", "exact", "ctm")
"""Methods that give the weighted sum, as an average of states is one."""


@dataclass
class BlendOptions:
    """What ``blend`` is asked for. ``command`` declares the method and its parameters."""

    adapters: Annotated[
        list[str],
        typer.Argument(
            metavar="[FILE[:WEIGHT]]...", help="Adapters, each with its weight if it is not 1.", show_default=False
        ),
    ] = field(default_factory=list)
    states: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Average the saved states of this run, trimmed to its rank, in place of adapters."
        ),
    ] = None
    width: Annotated[float, typer.Option(help=f"For --states: {WIDTH.help}", min=WIDTH.low, max=WIDTH.high)] = float(
        WIDTH.default
    )
    until: Annotated[int | None, typer.Option(metavar="STEP", help="For --states: the last state of the average.")] = (
        None
    )
    method: str | None = None
    blocks: Annotated[
        list[str],
        typer.Option(
            "--block",
            metavar="N:BLOCK=FACTOR",
            help="Multiply the N-th adapter's weight in a block, for example 1:up_blocks.1=0.5; may be repeated.",
        ),
    ] = field(default_factory=list)
    lists: Annotated[
        list[str],
        typer.Option(
            "--blocks",
            metavar="FILE=LIST",
            help="Multiply an adapter's weight by a list of block weights as A1111's extension has them, or by one of "
            "its presets, for example ink=OUTALL; may be repeated.",
        ),
    ] = field(default_factory=list)
    thumbnail: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="A picture for the result's header, which libraries show.")
    ] = None
    dtype: Annotated[
        shared.Number | None, typer.Option(help="Number format of the weights.", show_default="the first adapter's")
    ] = None
    outputs: Outputs = OUTPUTS
    out: shared.Saved = None
    as_json: AsJson = False

    @property
    def parameters(self) -> dict[str, int | float]:
        """The parameters that were given, by key."""
        given = {key: getattr(self, key) for key in blend_methods.parameters()}
        return {key: value for key, value in given.items() if value is not None}


def command() -> Callable[..., None]:
    """The command, with the blend methods that are registered by now and an option for each of their parameters."""
    summary = "How the adapters are combined. " + " ".join(f"{one.key}: {one.help}" for one in METHODS.values())
    shown = "exact; svd for --states"
    method = Annotated[str | None, typer.Option(metavar=f"[{'|'.join(METHODS)}]", help=summary, show_default=shown)]
    declared = [(key, _option(one), field(default=None)) for key, one in blend_methods.parameters().items()]
    fields = [("method", method, field(default=None)), *declared]
    options = make_dataclass("_Options", fields, bases=(BlendOptions,))

    @of_class(cast("type[BlendOptions]", options))
    def blend(options: BlendOptions) -> None:
        """Blend adapters into one."""
        blend_files(options)

    return blend


def _option(parameter: BlendParameter) -> Any:
    """How typer reads ``parameter``: as a number, or None where it is not given."""
    takers = blend_methods.takers(parameter)
    option = typer.Option(
        help=f"For {', '.join(takers)}: {parameter.help}" if takers else parameter.help,
        min=None if parameter.above_low else parameter.low,
        max=parameter.high,
        show_default=f"{parameter.default}",
    )
    return Annotated[int | None, option] if parameter.whole else Annotated[float | None, option]


def blend_files(options: BlendOptions) -> None:
    """Blends the files that ``options`` name, saves the result if asked to, and prints what it is.

    Raises:
        StudioError: an option makes no sense, or the adapters cannot be blended so.
    """
    method = options.method or ("svd" if options.states else "exact")
    blend_methods.checked(method, options.parameters)
    chosen = _chosen(options)
    path = shared.destination(options.out) if options.out else None

    from lora_studio import adapters
    from lora_studio.adapters import blend as blending

    read = [adapters.read(one.file) for one in chosen]
    parts = [
        blending.ingredient(one.name, one.weight, adapter, one.blocks)
        for one, adapter in zip(chosen, read, strict=True)
    ]
    recipe = recipes.blend(method=method, ingredients=parts, **options.parameters)
    title = {"modelspec.title": f"Average of {options.states}, width {options.width:g}"} if options.states else {}
    blended = _with_texts(blending.blend(recipe, read), title | _picture(options.thumbnail))
    _save_and_tell(recipe, blended, path, options.dtype or _number(read[0]), options.as_json)


def _chosen(options: BlendOptions) -> list[Chosen]:
    """What is blended: files or states."""
    if options.states is None:
        return ingredients.of_files(options.adapters, options.blocks, options.lists)
    if options.method not in (None, *_SUMS):
        raise SettingsError(
            f"{METHODS[options.method].title} makes no average of states.",
            where="--method",
            do=f"Choose {', '.join(_SUMS)}.",
        )
    if options.adapters or options.blocks or options.lists:
        raise SettingsError(
            "--states takes the place of adapters and of weights by block.",
            where="--states",
            do="Save the average with -o, then blend that file with others.",
        )
    return ingredients.of_states(runs.find(options.states, options.outputs), options.width, options.until)


def _save_and_tell(
    recipe: recipes.Blend, blended: Blended, path: Path | None, number: shared.Number | None, as_json: bool
) -> None:
    export = shared.save(blended.adapter, path, number) if path else None
    size = path.stat().st_size if path else shared.bytes_of(blended.adapter, number)
    result = {
        "file": path,
        "method": recipe.method,
        "rank": blended.adapter.rank,
        "modules": len(blended.adapter.factors),
        "size": size,
        "residual": blended.residual,
        "residuals": blended.residuals,
        "notices": [in_sequence((notice.what, notice.do)) for notice in blended.notices],
        "recipe": recipe.model_dump(),
        "proof": export.proof.data() if export else [],
    }
    saved = f"Saved: {path}" if path else "Nothing is saved without -o."
    tell(result, [*_lines(result, blended), *(export.proof.lines() if export else []), saved], as_json)


def _with_texts(blended: Blended, texts: dict[str, str]) -> Blended:
    """``blended`` with ``texts`` laid over its header."""
    return blended._replace(adapter=replace(blended.adapter, metadata={**blended.adapter.metadata, **texts}))


def _picture(picture: Path | None) -> dict[str, str]:
    """The header's entry for ``picture`` as thumbnail.

    Raises:
        AdapterError: it is not a picture.
    """
    if picture is None:
        return {}
    from lora_studio.adapters import metadata

    return {"modelspec.thumbnail": metadata.thumbnail(picture.expanduser())}


def _number(adapter: Any) -> shared.Number | None:
    """The number format of an adapter's first factor; None where nothing is saved in that one."""
    name = str(next(iter(adapter.factors.values())).down.dtype).removeprefix("torch.") if adapter.factors else ""
    return {"float32": shared.Number.FP32, "float16": shared.Number.FP16, "bfloat16": shared.Number.BF16}.get(name)


def _lines(result: dict[str, Any], blended: Blended) -> list[str]:
    title, size = blended.adapter.metadata.get("modelspec.title", ""), shared.megabytes(result["size"])
    lines = [f"{title}: {result['method']}, rank {result['rank']}, {result['modules']} modules, {size}"]
    if blended.residual:
        kept = shared.percent(1 - blended.residual**2)
        lines.append(f"Trimming keeps {kept} of the change (residual {blended.residual:.2g}).")
    return [*lines, *(f"Note: {notice}" for notice in result["notices"])]


blend = command()
