"""Saves an adapter's model card: its texts in the header, and as Markdown with pictures beside the file. No torch.

ink.safetensors          the header tells title, author, licence, tags, notes; the weights' bytes stay as they are
ink.md                   the card
ink.pictures/1.webp      its pictures
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from lora_studio import adapters, files
from lora_studio.adapters import card, detect
from lora_studio.adapters.card import CardText
from lora_studio.adapters.head import relabel
from lora_studio.adapters.kinds import KINDS
from lora_studio.language import ENGLISH, english, tr, using
from lora_studio.runs.shown import Shown

_SIDE = 768
"""Pixels of a picture's longer side at most."""


def card_file(adapter: Path) -> Path:
    """The card beside an adapter's file."""
    return adapter.with_suffix(".md")


def pictures_folder(adapter: Path) -> Path:
    """Where the card's pictures are."""
    return adapter.with_suffix(".pictures")


def markdown(adapter: Path, pictures: Sequence[card.CardPicture]) -> str:
    """The card of an adapter, by what its header says now. It is in English, as others read it.

    Raises:
        AdapterError: it cannot be read.
    """
    summary, texts = adapters.summary(adapter), adapters.header(adapter).metadata
    family = english(detect.label(summary.family)).removeprefix("the ")
    family = family[:1].upper() + family[1:]
    with using(ENGLISH):
        return card.markdown(adapter.stem, texts, family, KINDS[summary.method].title, summary.rank, pictures)


def pictures(adapter: Path, shown: Sequence[Shown]) -> list[card.CardPicture]:
    """The card's pictures as ``save`` names them."""
    folder = quote(pictures_folder(adapter).name)
    return [card.CardPicture(f"{folder}/{place}.webp", one.prompt) for place, one in enumerate(shown, 1)]


def called(text: str, adapter: Path, other: Path) -> str:
    """The ``text`` of a card whose adapter was renamed to ``other``: it names the file and the folder of pictures."""
    folder, there = (f"({quote(pictures_folder(one).name)}/" for one in (adapter, other))
    return text.replace(folder, there).replace(f"`{adapter.name}`", f"`{other.name}`")


def save(adapter: Path, text: CardText, shown: Sequence[Shown]) -> Path:
    """Writes what the artist says into the header and beside the adapter.

    Args:
        shown: the pictures of the card.

    Returns:
        The card's file.

    Raises:
        SettingsError: a text is too long.
        AdapterError: the adapter is damaged; it is left as it is.
        MachineError: the disk refuses; each file is the old one or the new one, whole.
    """
    text = text.tidy()
    try:
        relabel(adapter, text.entries())
        for place, one in enumerate(shown, 1):
            files.write(pictures_folder(adapter) / f"{place}.webp", _small(one.style))
        for old in pictures_folder(adapter).glob("*.webp"):
            if old.stem.isdecimal() and int(old.stem) > len(shown):
                files.unlink(old)
        files.write(card_file(adapter), markdown(adapter, pictures(adapter, shown)))
    except OSError as error:
        raise files.refusal(error, tr("The model card could not be saved"), adapter.parent) from error
    return card_file(adapter)


def _small(picture: Path) -> bytes:
    """The picture as a WebP of limited size."""
    with Image.open(picture, formats=("PNG", "WEBP", "JPEG")) as image:
        made = image.convert("RGB")
    made.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    made.save(data, "WEBP", quality=88, method=4)
    return data.getvalue()
