"""Small pictures in the panels, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from lora_studio.curation.collection import Card
from lora_studio.dataset import pictures
from lora_studio.errors import DatasetError
from lora_studio.ui import images, words


def make(cards: Iterable[Card], outputs: Path) -> None:
    """Makes the thumbnails that are missing, several at once; of a file that is gone or damaged there is none."""
    missing = [card for card in cards if not _file(card, outputs).exists()]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda card: _make(card, outputs), missing))


def button(card: Card, outputs: Path) -> str:
    """The picture as a button, which asks to choose it. An image that is still to be made is marked as wanted."""
    name, made = words.text(card.name), _file(card, outputs)
    source = f'src="{words.text(images.address(made))}"' if made.exists() else "data-wanted"
    return (
        f'<button type="button" class="thumbnail" data-act="choose" data-name="{name}" title="{name}">'
        f'<img {source} alt="{name}" loading="lazy"></button>'
    )


def row(cards: Sequence[Card], most: int, outputs: Path) -> str:
    """The first ``most`` pictures side by side, and how many more there are."""
    if not cards:
        return ""
    shown = "".join(button(card, outputs) for card in cards[:most])
    more = f"<span>+ {len(cards) - most:,}</span>" if len(cards) > most else ""
    return f'<div class="small-pictures">{shown}{more}</div>'


def _file(card: Card, outputs: Path) -> Path:
    return pictures.thumbnail_file(_folder(outputs), images.PICTURE, card.picture.sha256)


def _make(card: Card, outputs: Path) -> None:
    with suppress(DatasetError):  # the list says why, where the picture has its card
        pictures.thumbnail(card.picture.path, _folder(outputs), images.PICTURE, card.picture.sha256)


def _folder(outputs: Path) -> Path:
    return images.folder(outputs) / "pictures"
