"""Takes the settings of a picture over into the fields: what the page can do is filled in, what it cannot is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lora_studio.diffusion import samplers
from lora_studio.errors import StudioError
from lora_studio.language import english, tr
from lora_studio.runs import library
from lora_studio.runs.library import Entry
from lora_studio.sampling.picture_recipe import Stated
from lora_studio.ui.pages.draw import sizes, starts
from lora_studio.ui.pages.draw.sizes import PixelSize
from lora_studio.ui.pages.library import cards
from lora_studio.ui.scene import base_reading
from lora_studio.ui.scene.base_reading import READING
from lora_studio.ui.scene.mixture import Mix, bounded

_SAME = ("prompt", "negative", "seed", "steps", "guidance", "prompt_weights")
"""What recipes and fields call alike."""
_FEWEST = 8
"""Characters of a hash that tell an adapter."""


class TakenSettings(NamedTuple):
    """What the fields are to hold.

    Attributes:
        fields: by the names of ``order.DrawFields``.
        base_read: how the base model was read; None where the picture does not tell.
        left: what is not taken over, a sentence each.
    """

    fields: dict[str, Any]
    base_read: dict[str, Any] | None
    left: list[str]


def take(stated: Stated, mix: Mix, base: str, outputs: Path) -> TakenSettings:
    """The settings that a picture tells. Its adapters take the place of those in ``mix``.

    Args:
        base: the base model that the page draws with, which stays where the picture's own is not at hand.
    """
    told = stated.values
    left = [f"{name}: {value}" for name, value in stated.left.items()]
    fields = {key: told[key] for key in _SAME if key in told}
    if (sampler := told.get("sampler")) in samplers.NAMES:
        fields["sampler"] = sampler
    if "adapters" in told:
        left += _place(told["adapters"], mix, outputs)
    fields["base"], missing = _base(str(told.get("base") or ""), base, mix, outputs)
    fields |= _size(told, fields["base"]) | _second_pass(told) | _start(told, outputs)
    if told.get("start") and not fields.get("start"):
        left.append(tr("The picture that it was drawn from is not here: choose it again."))
    read = {key: told[key] for key in READING if key in told} if stated.own else None
    parts = [tr("{name} was used with the base model.", name=name) for name in told.get("parts") or {}]
    return TakenSettings(fields, read, [*left, *missing, *parts])


def _place(used: object, mix: Mix, outputs: Path) -> list[str]:
    """Puts adapters into ``mix``; tells which are not at hand."""
    mix.rows, left = [], []
    entries = library.entries(outputs)
    for one in used if isinstance(used, list | tuple) else []:
        name = str(one["name"])
        entry = _entry(name, str(one.get("tensors") or ""), entries)
        weight, why = bounded(one["weight"], 1.0)
        if entry is None:
            left.append(tr("The adapter {name} ({weight:g}) is not in your library.", name=name, weight=one["weight"]))
            continue
        try:
            mix.add(entry, outputs, weight, one.get("blocks"))
        except StudioError as error:
            left.append(str(error))
        left += [f"{name}: {why}"] if why else []
    return left


def _entry(name: str, tensors: str, entries: list[Entry]) -> Entry | None:
    """The adapter with these tensors, else the latest one of that name."""
    same = [one for one in entries if len(tensors) >= _FEWEST and one.tensors_sha256.startswith(tensors)]
    called = [one for one in entries if name in (cards.stem(one), Path(one.path).stem, english(cards.title(one)))]
    return next(iter([*(one for one in same if one in called), *same, *called]), None)


def _base(told: str, base: str, mix: Mix, outputs: Path) -> tuple[str, list[str]]:
    """The base model to draw with, and what is to be said of it."""
    if not told or told in (base, Path(base).name):
        return base, []
    known = base_reading.bases(outputs, "")
    if found := next((path for _, path in known if told in (path, Path(path).name, Path(path).stem)), None):
        return found, []
    offered = [path for _, path in base_reading.bases(outputs, mix.family)] if mix.rows else []
    return (offered[0] if offered else base), [
        tr("The base model {told} is not known here: choose it yourself.", told=told)
    ]


def _size(told: Mapping[str, Any], base: str) -> dict[str, Any]:
    width, height = told.get("width"), told.get("height")
    if not width or not height:
        return {}
    size = PixelSize(int(width), int(height))
    try:
        shape = sizes.shape_of(size, sizes.side_of(base))
    except StudioError:  # the base model is gone, as drawing will say
        shape = None
    own = {"width": size.width, "height": size.height}
    return {"shape": shape[0], "upright": shape[1], **own} if shape else {"shape": sizes.OWN, **own}


def _second_pass(told: Mapping[str, Any]) -> dict[str, Any]:
    hires = told.get("hires")
    if not hires:
        return {"larger": False}
    names = {"scale": "scale", "scale_strength": "strength", "scale_steps": "steps"}
    return {"larger": True, **{name: hires[key] for name, key in names.items()}}


def _start(told: Mapping[str, Any], outputs: Path) -> dict[str, Any]:
    start = told.get("start")
    if not start:
        return {"start": ""}
    found = starts.find(str(start.get("sha256") or ""), outputs)
    return {"start": str(found) if found else "", "start_strength": start["strength"]}
