"""``blend``: several adapters become one. Its methods and their options come from ``adapters.blend_methods``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lora_studio.adapters import blend_methods
from lora_studio.adapters import recipe as recipes
from lora_studio.adapters.blend_methods import METHODS, BlendParameter
from lora_studio.cli import adapters as shared
from lora_studio.cli.generate import parse_adapter
from lora_studio.cli.options import AsJson, of_class, tell
from lora_studio.errors import SettingsError

if TYPE_CHECKING:
    from lora_studio.adapters.blend import Blended


@dataclass
class BlendOptions:
    """What ``blend`` is asked for. ``command`` declares the method and its parameters."""

    adapters: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE[:WEIGHT]...", help="Adapters, each with its weight if it is not 1.", show_default=False
        ),
    ] = field(default_factory=list)
    method: str = "exact"
    blocks: Annotated[
        list[str],
        typer.Option(
            "--block",
            metavar="N:BLOCK=FACTOR",
            help="Multiply the N-th adapter's weight in a block, for example 1:up_blocks.1=0.5; may be repeated.",
        ),
    ] = field(default_factory=list)
    thumbnail: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="A picture for the result's header, which libraries show.")
    ] = None
    dtype: Annotated[
        shared.Number | None, typer.Option(help="Number format of the weights.", show_default="the first adapter's")
    ] = None
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
    method = Annotated[str, typer.Option(metavar=f"[{'|'.join(METHODS)}]", help=summary)]
    declared = [(key, _option(one), field(default=None)) for key, one in blend_methods.parameters().items()]
    fields = [("method", method, field(default="exact")), *declared]
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
    if not options.adapters:
        raise SettingsError(
            "No adapter is named.",
            where="FILE",
            do="Write for example: python3 app.py blend a.safetensors:0.7 b.safetensors:0.3 -o ab.safetensors",
        )
    blend_methods.checked(options.method, options.parameters)
    named = [parse_adapter(text, "FILE") for text in options.adapters]
    blocks = parse_blocks(options.blocks, len(named))
    path = shared.destination(options.out) if options.out else None

    from lora_studio import adapters
    from lora_studio.adapters import blend as blending

    read = [adapters.read(file) for file, _ in named]
    ingredients = [
        blending.ingredient(file.stem, weight, adapter, factors)
        for (file, weight), adapter, factors in zip(named, read, blocks, strict=True)
    ]
    recipe = recipes.blend(method=options.method, ingredients=ingredients, **options.parameters)
    blended = _with_picture(blending.blend(recipe, read), options.thumbnail)
    _save_and_tell(recipe, blended, path, options.dtype or _number(read[0]), options.as_json)


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
        "notices": [f"{notice.what} {notice.do}" for notice in blended.notices],
        "recipe": recipe.model_dump(),
        "proof": export.proof.data() if export else [],
    }
    saved = f"Saved: {path}" if path else "Nothing is saved without -o."
    tell(result, [*_lines(result, blended), *(export.proof.lines() if export else []), saved], as_json)


def _with_picture(blended: Blended, picture: Path | None) -> Blended:
    """``blended`` with ``picture`` as its thumbnail.

    Raises:
        AdapterError: it is not a picture.
    """
    if picture is None:
        return blended
    from lora_studio.adapters import metadata

    texts = {**blended.adapter.metadata, "modelspec.thumbnail": metadata.thumbnail(picture.expanduser())}
    return blended._replace(adapter=replace(blended.adapter, metadata=texts))


def parse_blocks(texts: list[str], count: int) -> list[dict[str, float]]:
    """Each adapter's factors by block, from texts ``N:BLOCK=FACTOR`` where N counts from 1.

    Raises:
        SettingsError: a text has another form, or there is no N-th adapter.
    """
    blocks: list[dict[str, float]] = [{} for _ in range(count)]
    for text in texts:
        number, _, rest = text.partition(":")
        block, _, factor = rest.partition("=")
        try:
            index, value = int(number), float(factor)
        except ValueError:
            index, value = 0, 0.0
        if not (1 <= index <= count and block):
            raise SettingsError(
                f"{text!r} is not the weight of a block.",
                where="--block",
                do=f"Write for example 1:up_blocks.1=0.5, with a number from 1 to {count}.",
            )
        blocks[index - 1][block] = value
    return blocks


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
