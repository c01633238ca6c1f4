"""The pictures as cards: each with the part that is trained on, its caption, size and marks, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lora_studio.curation.collection import CROPPED, Card, Collection
from lora_studio.dataset.pictures import thumbnail
from lora_studio.errors import DatasetError
from lora_studio.ui import images, words
from lora_studio.ui.pages.pictures.look import PAGE_SIZE, PicturesLook

CHOOSE = """
element.addEventListener('click', event => {
  const card = event.target.closest('.picture');
  if (card) trigger('click', {act: 'choose', name: card.dataset.name});
});
"""
"""Reports the card that was clicked; for ``gr.HTML(js_on_load=...)``."""


def html(look: PicturesLook, found: Sequence[Card], collection: Collection, outputs: Path) -> str:
    """The page of ``found`` that ``look`` shows."""
    if not collection.cards:
        return '<p class="hint" role="status">This folder has no picture yet.</p>'
    if not found:
        return '<p class="hint" role="status">No picture has all that. Clear the search or choose another filter.</p>'
    shown = found[look.page * PAGE_SIZE : (look.page + 1) * PAGE_SIZE]
    with ThreadPoolExecutor() as pool:
        made = pool.map(lambda card: _card(card, card.name == look.chosen, outputs), shown)
    return f'<div class="pictures">{"".join(made)}</div>'


def _card(card: Card, chosen: bool, outputs: Path) -> str:
    """One card; its frame shows the part that is trained on."""
    name = words.text(card.name)
    size = f"{card.picture.width} × {card.picture.height}"
    line = "left out" if card.left_out else f"{size} → {card.bucket} · {words.counted(card.tokens, 'token')}"
    caption = words.text(card.picture.caption or "no caption")
    classes = f"picture{' out' if card.left_out else ''}{'' if card.picture.caption else ' bare'}"
    current = str(chosen).lower()
    return (
        f'<button type="button" class="{classes}" data-name="{name}" aria-current="{current}" title="{name}">'
        f"{picture(card, outputs)}<b>{caption}</b><span>{words.text(line)}</span></button>"
    )


def picture(card: Card, outputs: Path, side: int = images.PICTURE) -> str:
    """The picture with a frame around the part that is trained on, as HTML; a line of text if the file is gone."""
    try:
        path = thumbnail(card.picture.path, images.folder(outputs) / "pictures", side)
    except DatasetError as error:
        return f'<span class="view gone">{words.text(error.what)}</span>'
    shape = f"aspect-ratio: {card.picture.width} / {card.picture.height}"
    image = f'<img src="{words.text(images.address(path))}" alt="" loading="lazy">'
    return f'<span class="view"><span class="whole" style="{shape}">{image}{_frame(card)}</span></span>'


def _frame(card: Card) -> str:
    if card.seen > 1 - CROPPED:
        return ""
    width, height = card.picture.width, card.picture.height
    left, top, right, bottom = card.box
    inset = (top / height, 1 - right / width, 1 - bottom / height, left / width)
    return f'<i class="crop" style="inset: {" ".join(f"{share:.2%}" for share in inset)}"></i>'
