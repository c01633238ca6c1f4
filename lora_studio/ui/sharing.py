"""The share sheet of an adapter as a download."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from lora_studio import adapters, files
from lora_studio.adapters import detect, metadata, usage
from lora_studio.adapters.card import CardText
from lora_studio.errors import StudioError
from lora_studio.language import english, tr
from lora_studio.runs import Run, shown
from lora_studio.runs.library import Entry
from lora_studio.runs.shown import Shown
from lora_studio.sampling import share_sheet
from lora_studio.ui import images, words


def shown_by(entry: Entry, outputs: Path) -> list[Shown]:
    """The previews that were drawn with an adapter: a run's own or one of its states, not what was made of it."""
    own = entry.run and (entry.state is not None or Path(entry.path).stem == entry.run)
    return shown.of(Run(outputs / entry.run), entry.state)[: share_sheet.MOST] if own else []


def link(adapter: Path, found: list[Shown], outputs: Path, name: str = "") -> str:
    """A link that downloads the sheet, as HTML; empty where no pictures show the adapter, or it cannot be read.

    Args:
        found: the previews that show it.
        name: what it is called on the sheet; its file's name if empty.
    """
    try:
        file = _made(adapter, name or adapter.stem, found, outputs) if found else None
    except (StudioError, OSError):
        file = None  # the pictures or the file are gone, which the page says where it shows them
    if file is None:
        return ""
    address = words.text(images.address(file))
    return f'<a class="way" download="{words.text(file.name)}" href="{address}">{words.text(tr("Share sheet"))}</a>'


def _made(adapter: Path, name: str, found: list[Shown], outputs: Path) -> Path:
    """The sheet's file, drawn if there is none of these pictures and this header.

    Raises:
        AdapterError: the adapter cannot be read.
        OSError: a picture cannot be read.
    """
    parts = [adapter, *(one.style for one in found[: share_sheet.MOST])]
    stamp = "|".join([name, *(f"{path}|{path.stat().st_mtime_ns}" for path in parts)])
    key = hashlib.sha256(stamp.encode()).hexdigest()[:32]
    target = images.folder(outputs) / "sheets" / key / f"{files.safe_name(name)}-sheet.png"
    if not target.exists():
        pairs = [
            share_sheet.SheetPair(one.prompt, images.preview(one.base) if one.base else None, images.preview(one.style))
            for one in found[: share_sheet.MOST]
        ]
        data = io.BytesIO()
        share_sheet.draw(pairs, name, _facts(adapter)).save(data, "PNG", optimize=True)
        files.write(target, data.getvalue())
    return target


def _facts(adapter: Path) -> list[str]:
    """How it is used, in short: trigger word, strength, base model, author. In English, as the sheet's other words are:
    it is shared, and its font has no other letters.
    """
    texts = adapters.header(adapter).metadata
    trigger, strength, author = metadata.trigger(texts), usage.strength(texts), CardText.read(texts).author
    return [
        *([f"Trigger word: {trigger}"] if trigger else []),
        *([f"Strength: {strength.recommended:g}"] if strength else []),
        english(detect.heading(adapters.summary(adapter).family)),
        *([f"By {author}"] if author else []),
    ]
