"""What a run was trained on, as plain data: to tell later whether a folder is still the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

from lora_studio.dataset.items import Dataset


class Entry(TypedDict):
    """One picture of a manifest."""

    sha256: str
    caption: str
    repeats: int


Manifest = dict[str, Entry]
"""Entries by the picture's name relative to the folder; can be written as JSON."""


def manifest(dataset: Dataset) -> Manifest:
    """What ``dataset`` holds now."""
    return {
        dataset.name(picture): Entry(sha256=picture.sha256, caption=picture.caption, repeats=picture.repeats)
        for picture in dataset.pictures
    }


def noted(path: Path) -> Manifest | None:
    """The manifest that was written to ``path`` as JSON; None where there is none, or it is damaged."""
    try:
        table = json.loads(path.read_text("utf-8"))
        return {
            name: Entry(sha256=str(entry["sha256"]), caption=str(entry["caption"]), repeats=int(entry["repeats"]))
            for name, entry in table.items()
        }
    except (OSError, ValueError, AttributeError, LookupError, TypeError, ArithmeticError, RecursionError):
        return None


def changes(before: Manifest, after: Manifest) -> list[str]:
    """One sentence for every difference, in the order of the names; none where the two are the same."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            found.append(f"{name} is gone.")
        elif name not in before:
            found.append(f"{name} is new.")
        else:
            old, new = before[name], after[name]
            found += [f"{name} is another picture."] * (old["sha256"] != new["sha256"])
            found += [f"{name} has another caption."] * (old["caption"] != new["caption"])
            found += [f"{name} comes up {new['repeats']} times per epoch instead of {old['repeats']}."] * (
                old["repeats"] != new["repeats"]
            )
    return found
