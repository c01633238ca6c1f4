"""The large picture that the editor's tools work on."""

from __future__ import annotations

from pathlib import Path

from lora_studio.curation.collection import CROPPED, Card
from lora_studio.dataset.pictures import thumbnail
from lora_studio.errors import StudioError
from lora_studio.ui import images, words
from lora_studio.ui.pages.pictures import drawn_masks

SIDE = 1024
"""Longest side of the page's copy, in pixels."""


def image(card: Card, outputs: Path) -> str:
    """The address of a copy of the card's picture; empty if the file is gone."""
    try:
        return images.address(thumbnail(card.picture.path, images.folder(outputs) / "pictures", SIDE))
    except (StudioError, OSError):
        return ""


def view(card: Card, outputs: Path) -> str:
    """The picture with what is cut off and what its mask hides shaded, as HTML."""
    width, height = card.picture.width, card.picture.height
    shape = f"aspect-ratio: {width} / {height}; --shape: {width / height:.4f}"
    alt = words.text(card.picture.caption or card.name)
    found = f'<img src="{words.text(image(card, outputs))}" alt="{alt}">'
    return f'<div class="stage" style="{shape}">{found}{hidden(card, outputs)}{frame(card)}</div>'


def hidden(card: Card, outputs: Path) -> str:
    """What the picture's mask hides, shaded; empty if it has none, or if that is gone."""
    try:
        mask = drawn_masks.overlay(card.picture, outputs)
    except (StudioError, OSError):
        return ""
    return f'<img class="hidden-part" src="{words.text(mask)}" alt="">' if mask else ""


def frame(card: Card) -> str:
    """What is cut off, shaded; empty if nothing is."""
    if card.seen > 1 - CROPPED:
        return ""
    width, height = card.picture.width, card.picture.height
    left, top, right, bottom = card.box
    inset = (top / height, 1 - right / width, 1 - bottom / height, left / width)
    return f'<i class="crop" style="inset: {" ".join(f"{share:.2%}" for share in inset)}"></i>'
