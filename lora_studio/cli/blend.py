"""``blend``: several adapters -> one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_studio.adapters import recipe as recipes
from lora_studio.cli import adapters as shared
from lora_studio.cli.generate import parse_adapter
from lora_studio.cli.options import AsJson, of_class, tell
from lora_studio.errors import SettingsError

if TYPE_CHECKING:
    from lora_studio.adapters.blend import Blended


@dataclass
class Order:
    """What ``blend`` is asked for."""

    adapters: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE[:WEIGHT]...", help="Adapters, each with its weight if it is not 1.", show_default=False
        ),
    ] = ()
    method: Annotated[
        recipes.Method,
        typer.Option(
            help="exact: the sum itself. svd: trimmed to a rank. ties, dare, prune: only each one's main entries. "
            "subtract: the first less the others."
        ),
    ] = "exact"
    rank: Annotated[
        int,
        typer.Option(
            min=0, max=4096, help="Trim the result to this rank; 0 keeps all (svd: the largest rank of the adapters)."
        ),
    ] = 0
    density: Annotated[float, typer.Option(help="Share of entries that ties, dare and prune keep.")] = 0.5
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="dare's.")] = 0
    blocks: Annotated[
        list[str],
        typer.Option(
            "--block",
            metavar="N:BLOCK=FACTOR",
            help="Multiply the N-th adapter's weight in a block, as 1:up_blocks.1=0.5; may be repeated.",
        ),
    ] = ()
    thumbnail: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="A picture for the result's header, which libraries show.")
    ] = None
    dtype: Annotated[
        shared.Number | None, typer.Option(help="Number format of the weights.", show_default="the first adapter's")
    ] = None
    out: shared.Saved = None
    as_json: AsJson = False


@of_class(Order)
def blend(order: Order) -> None:
    """Blend adapters into one."""
    if not order.adapters:
        raise SettingsError(
            "No adapter is named.",
            where="FILE",
            do="Write for example: python3 app.py blend a.safetensors:0.7 b.safetensors:0.3 -o ab.safetensors",
        )
    named = [parse_adapter(text, "FILE") for text in order.adapters]
    blocks = parse_blocks(order.blocks, len(named))
    path = shared.destination(order.out) if order.out else None

    from lora_studio import adapters
    from lora_studio.adapters import blend as algebra

    read = [adapters.read(file) for file, _ in named]
    ingredients = [
        algebra.ingredient(file.stem, weight, adapter, factors)
        for (file, weight), adapter, factors in zip(named, read, blocks, strict=True)
    ]
    recipe = recipes.blend(
        method=order.method, ingredients=ingredients, rank=order.rank, density=order.density, seed=order.seed
    )
    number = order.dtype or _number(read[0])
    blended = _with_picture(algebra.blend(recipe, read), order.thumbnail)
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
        "recipe": recipe.model_dump(),
        "proof": export.proof.data() if export else [],
    }
    tell(
        result,
        [
            *_lines(result, blended),
            *(export.proof.lines() if export else []),
            f"Saved: {path}" if path else "Nothing is saved: no -o is given.",
        ],
        order.as_json,
    )


def _with_picture(blended: Blended, picture: Path | None) -> Blended:
    """``blended`` with ``picture`` as its thumbnail. Raises AdapterError where that is none."""
    if picture is None:
        return blended
    from lora_studio.adapters import metadata

    texts = {**blended.adapter.metadata, "modelspec.thumbnail": metadata.thumbnail(picture.expanduser())}
    return blended._replace(adapter=replace(blended.adapter, metadata=texts))


def parse_blocks(texts: list[str], count: int) -> list[dict[str, float]]:
    """Each adapter's factors by block, from ``N:BLOCK=FACTOR``, N counting from 1.

    Raises:
        SettingsError: one is of another form, or there is no N-th adapter.
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
                f"{text!r} is no weight of a block.",
                where="--block",
                do=f"Write for example 1:up_blocks.1=0.5, with a number from 1 to {count}.",
            )
        blocks[index - 1][block] = value
    return blocks


def _number(adapter: Any) -> shared.Number | None:
    """The number format of an adapter's first factor, where it is one to save in."""
    name = str(next(iter(adapter.factors.values())).down.dtype).removeprefix("torch.") if adapter.factors else ""
    return {"float32": shared.Number.FP32, "float16": shared.Number.FP16, "bfloat16": shared.Number.BF16}.get(name)


def _lines(result: dict[str, Any], blended: Blended) -> list[str]:
    size = shared.megabytes(result["size"])
    lines = [
        f"{blended.adapter.metadata.get('modelspec.title', '')}: {result['method']}, rank {result['rank']}, {result['modules']} modules, {size}"
    ]
    if blended.residual:
        lines.append(
            f"Trimming keeps {shared.percent(1 - blended.residual**2)} of the change (residual {blended.residual:.2g})."
        )
    return lines
