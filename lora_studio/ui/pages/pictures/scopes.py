"""Which pictures an edit or a model is for: all, those that are shown, or those that are selected."""

from __future__ import annotations

from collections.abc import Sequence

from lora_studio.curation.collection import Card, Collection
from lora_studio.language import tr
from lora_studio.ui.pages.pictures.drafts import ALL, FOUND, SELECTED
from lora_studio.ui.pages.pictures.look import PicturesLook


def cards(look: PicturesLook, collection: Collection) -> dict[str, list[Card]]:
    """Scope -> its pictures; a scope that is empty or the same as all is left out."""
    found, everything = collection.find(look.query), list(collection.cards.values())
    chosen = [card for card in everything if card.name in look.selected]
    known = {ALL: everything, FOUND: found, SELECTED: chosen}
    return {name: some for name, some in known.items() if name == ALL or 0 < len(some) < len(everything)}


def titles(known: dict[str, list[Card]]) -> list[tuple[str, str]]:
    """(title, scope) of each, for a choice."""
    return [(_title(scope, some), scope) for scope, some in known.items()]


def _title(scope: str, some: Sequence[Card]) -> str:
    match scope:
        case "found":
            return tr("{count:,} shown", count=len(some))
        case "selected":
            return tr("{count:,} selected", count=len(some))
    return tr("All {count:,}", count=len(some))
