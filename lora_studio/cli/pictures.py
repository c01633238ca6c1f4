"""``pictures``: what training makes of a folder of pictures: problems, sizes, what is cut off, tags, tokens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_studio import runs
from lora_studio.cli import datasets
from lora_studio.cli.options import AsJson, Outputs, like, tell
from lora_studio.errors import DatasetError
from lora_studio.runs import OUTPUTS

if TYPE_CHECKING:
    from lora_studio.curation.collection import Card, Collection

_SHOWN = 12
"""Sizes and tags that are listed."""
_CUT = 5
"""Pictures that are listed of those that lose most."""


def pictures(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of pictures.", show_default=False)],
    base: Annotated[str, like("base", metavar="MODEL")] = "starter",
    resolution: Annotated[int, like("resolution", show_default="the base model's")] = 0,
    trigger: Annotated[str, like("trigger")] = "",
    nested: Annotated[bool, typer.Option("--nested", help="Read all folders below the folder.")] = False,
    tidy: Annotated[
        bool, typer.Option("--tidy", help="Remove what was chosen for pictures and folders that are gone.")
    ] = False,
    yes: datasets.Allowed = False,
    outputs: Outputs = OUTPUTS,
    as_json: AsJson = False,
) -> None:
    """Show what training makes of a folder: problems, sizes, what is cut off, tags and tokens. Nothing is written
    but by --tidy.
    """
    if tidy:
        bench = datasets.workbench(folder, outputs)
        datasets.agree(bench, yes)
        datasets.tell_done(bench.forget_gone(), as_json)
        return
    from lora_studio.config.settings import Settings
    from lora_studio.curation.collection import Collection
    from lora_studio.curation.target import Target
    from lora_studio.dataset import folder as folders

    root = folder.expanduser()
    dataset = folders.scan(root, runs.cache_folder(outputs), _progress, nested=nested)
    if not dataset.pictures and not dataset.left_out and dataset.blocking:
        raise DatasetError(dataset.blocking[0].what, where=root, do=dataset.blocking[0].do)
    settings = Settings(data=str(root), base=base, resolution=resolution, trigger=trigger, nested=nested)
    collection = Collection.of(dataset, Target.of(settings))
    tell(_result(collection, trigger), list(_lines(collection, trigger)), as_json)


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done % 50 == 0 or done == total):
        print(f"\rReading the pictures: {done:,} of {total:,}", end="\n" * (done == total), file=sys.stderr, flush=True)


def _result(collection: Collection, trigger: str) -> dict[str, Any]:
    from lora_studio.curation import tags

    cards = collection.cards.values()
    return {
        "folder": collection.dataset.folder,
        "pictures": len(cards),
        "trained": sum(not card.left_out for card in cards),
        "class_pictures": sum(card.picture.regularisation and not card.left_out for card in cards),
        "left_out": [card.name for card in cards if card.left_out],
        "resolution": collection.target.resolution,
        "buckets": collection.buckets(),
        "cards": [_card(card) for card in cards],
        "most_tokens": collection.target.most_tokens,
        "tags": {one.tag: one.count for one in tags.frequencies(collection.captions)},
        "remarks": [one._asdict() for one in _remarks(collection, trigger)],
        "problems": [
            {
                "severity": one.severity,
                "kind": one.kind,
                "files": list(one.files or filter(None, [one.file])),
                "what": one.what,
                "do": one.do,
            }
            for one in collection.dataset.problems
        ],
    }


def _card(card: Card) -> dict[str, Any]:
    return {
        "name": card.name,
        "caption": card.picture.caption,
        "size": [card.picture.width, card.picture.height],
        "bucket": list(card.bucket),
        "box": [round(side, 2) for side in card.box],
        "seen": round(card.seen, 4),
        "tokens": card.tokens,
        "marks": sorted(card.marks),
    }


def _lines(collection: Collection, trigger: str) -> Iterator[str]:
    from lora_studio.curation import tags

    cards = [card for card in collection.cards.values() if not card.left_out]
    out, side = len(collection.cards) - len(cards), collection.target.resolution
    of_class = sum(card.picture.regularisation for card in cards)
    train = f"{len(cards):,} train" + (f" ({of_class:,} class pictures)" if of_class else "")
    yield f"{len(collection.cards):,} pictures: {train}, {out:,} left out. Prepared for {side} × {side}."
    for one in collection.dataset.problems:
        where = f"{one.file}: " if one.file and one.file not in one.what else ""
        yield f"{'Error' if one.severity == 'blocking' else 'Warning'}: {where}{one.what} {one.do}"
    yield from _table("Sizes that they train at", collection.buckets())
    cut = sorted((card for card in cards if "cropped" in card.marks), key=lambda card: card.seen)
    if cut:
        yield f"Cropped: {len(cut):,} picture{'s' * (len(cut) > 1)}"
        yield from (f"  {card.name}: {1 - card.seen:.0%} cut off, to {card.bucket}" for card in cut[:_CUT])
        if len(cut) > _CUT:
            yield f"  and {len(cut) - _CUT:,} more"
    if cards:
        lengths = sorted(card.tokens for card in cards)
        middle, most = lengths[len(lengths) // 2], collection.target.most_tokens
        yield f"Tokens of a caption: {lengths[0]} to {lengths[-1]}, {middle} in the middle; {most} are read"
    yield from _table("Tags", {one.tag: one.count for one in tags.frequencies(collection.captions)})
    yield from (f"{one.what} {one.do}" for one in _remarks(collection, trigger))


def _remarks(collection: Collection, trigger: str) -> list[Any]:
    from lora_studio.curation import tags

    return tags.remarks(collection.captions, trigger)


def _table(title: str, counts: dict[str, int]) -> Iterator[str]:
    """The first entries with their counts, in columns."""
    if not counts:
        return
    yield f"{title}:"
    shown = list(counts.items())[:_SHOWN]
    width = max(len(name) for name, _ in shown)
    yield from (f"  {name:{width}}  {count:,}" for name, count in shown)
    if len(counts) > _SHOWN:
        yield f"  and {len(counts) - _SHOWN:,} more"
