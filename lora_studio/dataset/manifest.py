"""What a run was trained on, as plain data, to find out later whether a folder has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from lora_studio.dataset.items import Dataset, Picture, PromptPair
from lora_studio.language import tr


class ManifestEntry(TypedDict):
    """One picture of a manifest, or one pair, which has no bytes of its own; what is as by default is missing."""

    sha256: str
    caption: str
    """With its folder's prefix."""
    repeats: int
    mask: NotRequired[str]
    """SHA-256 of the picture's mask."""
    crop: NotRequired[list[float]]
    """Left, top, right and bottom, as ``preparation.Crop``."""
    weight: NotRequired[float]
    timesteps: NotRequired[list[int]]
    regularisation: NotRequired[bool]
    prompts: NotRequired[list[str]]
    """Of a pair, as ``PromptPair.prompts``."""
    pictures: NotRequired[list[str]]
    """Of a pair of pictures, as ``PromptPair.pictures``."""


Manifest = dict[str, ManifestEntry]
"""Entries by the picture's name relative to the folder; can be written as JSON."""

_OPTIONAL: dict[str, Callable[[Any], Any]] = {
    "mask": str,
    "crop": lambda sides: [float(side) for side in sides],
    "weight": float,
    "timesteps": lambda levels: [int(level) for level in levels],
    "regularisation": bool,
    "prompts": lambda prompts: [str(prompt) for prompt in prompts],
    "pictures": lambda names: [str(name) for name in names],
}
"""How what an entry need not have is read."""


def manifest(dataset: Dataset) -> Manifest:
    """The manifest of ``dataset``."""
    pairs = {f"pair {number}": _pair(pair) for number, pair in enumerate(dataset.pairs, 1)}
    return {dataset.name(picture): _entry(picture) for picture in dataset.pictures} | pairs


def prepared(picture: Picture) -> str:
    """A hash of how a picture is trained on, apart from its bytes: 16 hexadecimal digits."""
    entry = {name: value for name, value in _entry(picture).items() if name != "sha256"}
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:16]


def noted(path: Path) -> Manifest | None:
    """The manifest that was written to ``path`` as JSON; None if it is missing or damaged."""
    try:
        return {name: _read(entry) for name, entry in json.loads(path.read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError, LookupError, TypeError, ArithmeticError, RecursionError):
        return None


def _read(entry: dict[str, Any]) -> ManifestEntry:
    found = ManifestEntry(sha256=str(entry["sha256"]), caption=str(entry["caption"]), repeats=int(entry["repeats"]))
    more = {name: read(entry[name]) for name, read in _OPTIONAL.items() if name in entry}
    return {**found, **more}


def _entry(picture: Picture) -> ManifestEntry:
    entry = ManifestEntry(sha256=picture.sha256, caption=picture.full_caption, repeats=picture.repeats)
    if picture.mask:
        entry["mask"] = picture.mask.sha256
    if picture.crop:
        entry["crop"] = list(picture.crop)
    if picture.weight != 1:
        entry["weight"] = picture.weight
    if picture.timesteps:
        entry["timesteps"] = list(picture.timesteps)
    if picture.regularisation:
        entry["regularisation"] = True
    return entry


def _pair(pair: PromptPair) -> ManifestEntry:
    entry = ManifestEntry(sha256="", caption="", repeats=1, prompts=[*pair.prompts])
    if pair.pictures:
        entry["pictures"] = [*pair.pictures]
    if pair.weight != 1:
        entry["weight"] = pair.weight
    return entry


def changes_since(before: Manifest, dataset: Dataset) -> list[str]:
    """As ``changes``, to ``dataset`` as it is now: a picture that was left out is still there."""
    return changes(before, manifest(dataset), set(map(dataset.name, dataset.left_out)))


def changes(before: Manifest, after: Manifest, left_out: Collection[str] = ()) -> list[str]:
    """One sentence for every difference, sorted by name. ``left_out`` are pictures that are not in ``after`` since the
    artist left them out.
    """
    found = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            found.append(
                tr("{name} was left out.", name=name) if name in left_out else tr("{name} was removed.", name=name)
            )
        elif name not in before:
            found.append(tr("{name} was added.", name=name))
        else:
            found += _entry_changes(name, before[name], after[name])
    return found


def _entry_changes(name: str, old: ManifestEntry, new: ManifestEntry) -> Iterator[str]:
    if old["sha256"] != new["sha256"]:
        yield tr("{name} is a different picture.", name=name)
    if old.get("prompts") != new.get("prompts"):
        yield tr("{name} has other prompts.", name=name)
    if old.get("pictures") != new.get("pictures"):
        yield tr("{name} has other pictures.", name=name)
    yield from _caption_change(name, old["caption"], new["caption"])
    if old.get("mask") != new.get("mask"):
        yield tr("{name} has a different mask.", name=name)
    if old.get("crop") != new.get("crop"):
        yield tr("{name} is cropped differently.", name=name)
    if old["repeats"] != new["repeats"]:
        yield tr(
            "{name} repeats {now} times per epoch instead of {before}.",
            name=name,
            now=new["repeats"],
            before=old["repeats"],
        )
    if (was := old.get("weight", 1.0)) != (now := new.get("weight", 1.0)):
        yield tr("{name} has the weight {now:g} instead of {before:g}.", name=name, now=now, before=was)
    if old.get("timesteps") != new.get("timesteps"):
        yield tr("{name} is trained at other noise levels.", name=name)
    if old.get("regularisation") != new.get("regularisation"):
        now_one = tr("{name} is now a class picture.", name=name)
        yield now_one if new.get("regularisation") else tr("{name} is no longer a class picture.", name=name)


def _caption_change(name: str, old: str, new: str) -> list[str]:
    if old == new:
        return []
    if old == new.replace("\n", " "):
        return [
            tr(
                "{name} has a caption of several lines, which an earlier version joined (caption_lines=joined).",
                name=name,
            )
        ]
    return [tr("{name} has a different caption.", name=name)]
