"""What a run was trained on, as plain data, to find out later whether a folder has changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NotRequired, TypedDict

from lora_studio.dataset.items import Dataset


class ManifestEntry(TypedDict):
    """One picture of a manifest."""

    sha256: str
    caption: str
    repeats: int
    mask: NotRequired[str]
    """SHA-256 of the picture's mask, if it has one."""


Manifest = dict[str, ManifestEntry]
"""Entries by the picture's name relative to the folder; can be written as JSON."""


def manifest(dataset: Dataset) -> Manifest:
    """The manifest of ``dataset``."""
    return {
        dataset.name(picture): _entry(
            picture.sha256, picture.caption, picture.repeats, picture.mask.sha256 if picture.mask else ""
        )
        for picture in dataset.pictures
    }


def noted(path: Path) -> Manifest | None:
    """The manifest that was written to ``path`` as JSON; None if it is missing or damaged."""
    try:
        table = json.loads(path.read_text("utf-8"))
        return {
            name: _entry(str(entry["sha256"]), str(entry["caption"]), int(entry["repeats"]), str(entry.get("mask", "")))
            for name, entry in table.items()
        }
    except (OSError, ValueError, AttributeError, LookupError, TypeError, ArithmeticError, RecursionError):
        return None


def _entry(sha256: str, caption: str, repeats: int, mask: str) -> ManifestEntry:
    entry = ManifestEntry(sha256=sha256, caption=caption, repeats=repeats)
    return ManifestEntry(**entry, mask=mask) if mask else entry


def changes(before: Manifest, after: Manifest) -> list[str]:
    """One sentence for every difference, sorted by name."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            found.append(f"{name} was removed.")
        elif name not in before:
            found.append(f"{name} was added.")
        else:
            old, new = before[name], after[name]
            found += [f"{name} is a different picture."] * (old["sha256"] != new["sha256"])
            found += _caption_change(name, old["caption"], new["caption"])
            found += [f"{name} has a different mask."] * (old.get("mask", "") != new.get("mask", ""))
            found += [f"{name} repeats {new['repeats']} times per epoch instead of {old['repeats']}."] * (
                old["repeats"] != new["repeats"]
            )
    return found


def _caption_change(name: str, old: str, new: str) -> list[str]:
    if old == new:
        return []
    if old == new.replace("\n", " "):
        return [f"{name} has a caption of several lines, which an earlier version joined (caption_lines=joined)."]
    return [f"{name} has a different caption."]
