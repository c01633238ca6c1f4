"""``inspect``: what an adapter's header says. Its tensors are not read."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lora_studio import adapters
from lora_studio.adapters import block_names, detect, embedding, foreign, keys
from lora_studio.adapters import recipe as recipes
from lora_studio.cli import adapters as shared
from lora_studio.cli.options import AsJson, tell

_SHOWN = 160
"""Characters of a header's text."""


def inspect(file: shared.Source, as_json: AsJson = False) -> None:
    """Show an adapter's family, format, rank, layers, and the texts of its header."""
    path = shared.existing(file)
    header, card = adapters.header(path), adapters.summary(path)
    _, tensors = embedding.collect(header.shapes, header.metadata, path)
    modules, unknown = keys.collect(tensors)
    blocks, recipe = Counter(map(block_names.block_of, modules)), recipes.read(header.metadata)
    result = {
        **card.model_dump(),
        "tensors": len(header.entries),
        "unknown": unknown,
        "blocks": dict(sorted(blocks.items())),
        "dtypes": sorted({entry.dtype for entry in header.entries.values()}),
        "recipe": recipe.kind if recipe else None,
        "metadata": header.metadata,
        "warning": foreign.contradiction(header.metadata, card.family),
    }
    tell(result, _lines(result), as_json)


def _lines(result: dict[str, Any]) -> list[str]:
    ranks = f"{result['rank']}{' (mixed)' if result['mixed_ranks'] else ''}"
    alpha = "not given (scale 1)" if result["alpha"] is None else f"{result['alpha']:g}"
    facts = {
        "Title": result["title"],
        "Made for": detect.label(result["family"]),
        "Method": result["method"],
        "Format": result["dialect"],
        "Rank": ranks,
        "Alpha": alpha,
        "Trigger": result["trigger"] or "not given",
        **({"Words": ", ".join(result["words"])} if result["words"] else {}),
        "Size": f"{shared.megabytes(result['size'])}, {', '.join(result['dtypes'])}",
        "Date": result["date"] or "not given",
        "Modules": ", ".join(f"{block} {count}" for block, count in result["blocks"].items()) or "none",
        "Recipe": result["recipe"] or "none",
    }
    if result["unknown"]:
        facts["Unknown"] = f"{len(result['unknown'])} tensors, such as {result['unknown'][0][:_SHOWN]}"
    if result["warning"]:
        facts["Warning"] = result["warning"]
    texts = [f"  {key} = {_short(value)}" for key, value in sorted(result["metadata"].items())]
    return [*(f"{name:9} {value}" for name, value in facts.items()), "Header:" if texts else "Header: empty", *texts]


def _short(text: str) -> str:
    """One line without control characters, which an untrusted file may contain."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[: _SHOWN + 1])
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}… ({len(text)} characters)"
