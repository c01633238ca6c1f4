"""What a mix is made of: adapters, their weights, and what the browser reports of them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from lora_studio import adapters
from lora_studio.adapters import (
    blend_methods,
    block_lists,
    block_names,
    container,
    detect,
    keys,
    metadata,
    recipe,
    usage,
)
from lora_studio.adapters.recipe import Blend, Ingredient
from lora_studio.adapters.usage import Strength
from lora_studio.errors import AdapterError, StudioError
from lora_studio.language import tr
from lora_studio.runs import library
from lora_studio.runs.library import Entry
from lora_studio.ui.pages.library import cards

LOW, HIGH = -2.0, 2.0
"""Weights that the page takes. Beyond twice an adapter's own strength hardly a picture survives; the command line takes
more.
"""
MOST = 8
"""Adapters of a mix."""
_ORDER = ("text", "down", "mid", "up", "ends")
"""How the names of a model's blocks begin, from its first block to its last."""


@dataclass
class MixRow:
    """One adapter of a mix."""

    key: str
    """Its path within the outputs folder."""
    name: str
    path: str
    family: str
    rank: int
    trigger: str
    paths: tuple[str, ...]
    """The layers that it changes."""
    clip_skip: int
    """That it states; 0 where it states none."""
    run: str
    """Name of its run; empty for one from elsewhere."""
    blend: bool
    """Whether it is a blend itself, with a recipe in its header."""
    cover: str
    """Its picture as HTML."""
    weight: float = 1.0
    factors: dict[str, float] = field(default_factory=dict)
    """By block, where it is not 1."""
    listed: str = ""
    """The list of its block weights, if it was asked for."""

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks that have a slider: the model's, those of lists if a list was pasted, and others with a weight."""
        own = tuple(sorted({block_names.block_of(path) for path in self.paths}, key=_place))
        others = [block for block in self.factors if block not in own]
        if others and all(block in block_lists.IDS[26] for block in self.factors):
            return block_lists.present(self.paths)
        return (*own, *others)

    def has(self, block: object) -> bool:
        """Whether it changes a layer in ``block``."""
        return isinstance(block, str) and any(block_names.contains(block, path) for path in self.paths)

    def use_list(self, text: str) -> list[str]:
        """Takes the weights of a list over; gives a sentence for each that was changed to fit.

        Raises:
            SettingsError: it is no list.
        """
        found = {block: bounded(factor, 1.0) for block, factor in block_lists.factors(text, self.paths).items()}
        self.factors = {block: factor for block, (factor, _) in found.items() if factor != 1}
        return [
            tr("{place}: {message}", place=f"{self.name}, {block}", message=why)
            for block, (_, why) in found.items()
            if why
        ]

    def write_list(self) -> None:
        """Puts the list of its block weights into ``listed``.

        Raises:
            SettingsError: a list cannot say them.
        """
        self.listed = block_lists.written(self.paths, lambda path: block_names.block_factor(self.factors, path))


@dataclass
class Mix:
    """What one browser tab mixes."""

    rows: list[MixRow] = field(default_factory=list)
    turn: int = 0
    """Counts the requests: a picture for an older one is not shown."""
    lane: str = ""
    """The tab's own lane at the renderer."""
    mixed: str = ""
    """The picture that is shown with the adapters."""
    plain: str = ""
    """The picture that is shown without them."""
    scene: str = ""
    """Key of the image spec that ``plain`` was drawn from."""
    base_read: dict[str, Any] = field(default_factory=dict)
    """How its runs read the base model, as the page's fields were last filled; see ``base_reading.reading``."""

    @property
    def family(self) -> str:
        """The kind of base model that its adapters were made for; empty without adapters."""
        return self.rows[0].family if self.rows else ""

    def add(
        self,
        entry: Entry,
        outputs: Path,
        weight: float | None = None,
        factors: Mapping[str, float] | None = None,
    ) -> None:
        """Puts an adapter below the others. Without ``weight`` it starts at the strength that its header recommends,
        else at 1.

        Raises:
            AdapterError: it was made for another kind of base model, is in the mix already, or the mix is full.
        """
        name = cards.title(entry)
        if self.rows and entry.family != self.family:
            first, other = detect.label(self.family), detect.label(entry.family)
            raise AdapterError(
                tr(
                    "{name} was made for {family} and {other} for {other_family}: they cannot be mixed.",
                    name=self.rows[0].name,
                    family=first,
                    other=name,
                    other_family=other,
                ),
                do=tr("Mix adapters of one kind of base model, or remove the others first."),
            )
        if len(self.rows) >= MOST:
            raise AdapterError(
                tr("A mix has at most {most} adapters.", most=MOST), do=tr("Save these as one, then add that.")
            )
        key = cards.key(entry, outputs)
        if key in (row.key for row in self.rows):
            raise AdapterError(tr("{name} is in the mix already.", name=name), do=tr("Change its weight instead."))
        inside = _inside(entry)
        self.rows.append(
            MixRow(
                key=key,
                name=self._free(name),
                path=entry.path,
                family=entry.family,
                rank=entry.rank,
                trigger=entry.trigger,
                paths=inside.paths,
                clip_skip=inside.clip_skip,
                run=entry.run,
                blend=inside.blend,
                cover=cards.picture(entry, outputs),
                weight=inside.strength if weight is None else weight,
                factors=dict(factors or {}),
            )
        )

    def follow(self, outputs: Path) -> bool:
        """Takes over where the adapters of renamed runs are now, and what they are called; whether there were any."""
        moved = False
        for place, row in enumerate(self.rows):
            entry = None if os.path.lexists(row.path) else cards.find(row.key, outputs)
            key = cards.key(entry, outputs) if entry else ""
            if entry is None or self.row(key):
                continue
            name, cover = self._free(cards.title(entry), row), cards.picture(entry, outputs)
            self.rows[place] = replace(row, key=key, name=name, path=entry.path, run=entry.run, cover=cover)
            moved = True
        return moved

    def _free(self, name: str, own: MixRow | None = None) -> str:
        """``name``, with a number if a row other than ``own`` has it: sheets tell their adapters apart by name."""
        taken, number, free = {row.name for row in self.rows if row is not own}, 1, name
        while free in taken:
            number += 1
            free = f"{name} ({number})"
        return free

    def draft(self) -> list[dict[str, Any]]:
        """The rows as the browser keeps them."""
        return [{"key": row.key, "weight": row.weight, "blocks": row.factors} for row in self.rows]

    def remove(self, key: str) -> None:
        """Takes an adapter out."""
        self.rows = [row for row in self.rows if row.key != key]

    def row(self, key: str) -> MixRow | None:
        """The adapter with that key, if it is in the mix."""
        return next((row for row in self.rows if row.key == key), None)

    def weigh(self, reported: Any) -> list[str]:
        """Takes over the weights that the browser reports, as [{"key", "weight", "blocks"}].

        Returns:
            a sentence for each weight that was changed to fit.
        """
        changes = []
        for one in reported if isinstance(reported, list) else []:
            row = self.row(str(one.get("key"))) if isinstance(one, dict) else None
            if row is None:
                continue
            row.weight, why = bounded(one.get("weight"), row.weight)
            changes += [tr("{place}: {message}", place=row.name, message=why)] if why else []
            blocks = one.get("blocks") if isinstance(one.get("blocks"), dict) else {}
            factors = {block: bounded(factor, 1.0)[0] for block, factor in blocks.items() if row.has(block)}
            row.factors = {block: factor for block, factor in factors.items() if factor != 1}
        return changes


def bounded(typed: object, before: float) -> tuple[float, str]:
    """The weight that was typed, kept in range, and why it differs from what was typed; empty if it does not.

    >>> bounded("0,75", 1.0), bounded(-0.5, 1.0)
    ((0.75, ''), (-0.5, ''))
    """
    try:
        weight = float(str(typed).strip().replace(",", ".").replace("−", "-"))
    except ValueError:
        weight = math.nan
    if math.isnan(weight):
        return before, tr(
            "“{typed}” is not a number, so the weight stays {before:g}.", typed=str(typed)[:20], before=before
        )
    if not LOW <= weight <= HIGH:
        kept = LOW if weight < LOW else HIGH
        return kept, tr(
            "{typed:g} is out of range. Weights go from −2 to 2, where 1 is as trained; it is now {kept:g}.",
            typed=weight,
            kept=kept,
        )
    return round(weight, 4), ""


class _Inside(NamedTuple):
    """As the fields of ``MixRow``."""

    paths: tuple[str, ...]
    clip_skip: int
    blend: bool
    strength: float
    """That it recommends, within what the page takes; 1 if it recommends none."""


def _inside(entry: Entry) -> _Inside:
    """What an adapter's header alone tells of it."""
    try:
        table, texts, _ = container.peek(Path(entry.path))
    except StudioError as error:
        raise AdapterError(
            tr("{title} can no longer be read.", title=cards.title(entry)), where=entry.path, do=error.do
        ) from error
    found, _ = keys.collect(table)
    strength = usage.strength(texts) or Strength(1.0)
    weight = min(max(strength.recommended, LOW), HIGH)
    return _Inside(tuple(found), metadata.clip_skip(texts), isinstance(recipe.read(texts), Blend), weight)


def _place(block: str) -> tuple[int, str]:
    """Sorts blocks from the model's first to its last."""
    return next((index for index, start in enumerate(_ORDER) if block.startswith(start)), len(_ORDER)), block


def apart(mix: Mix, key: str, outputs: Path) -> Blend:
    """Replaces a blend by the adapters that it was made of, each with its weight in it.

    Returns:
        the blend's recipe.

    Raises:
        AdapterError: it is not a blend, or an adapter of it is not in the library; the mix stays as it is.
    """
    row = mix.row(key)
    found = recipe.read(adapters.header(Path(row.path)).metadata) if row else None
    if row is None or not isinstance(found, Blend):
        raise AdapterError(tr("This is not a blend of the studio."), do=tr("Only a saved mix can be taken apart."))
    parts = _ingredients(found, row, outputs)
    changed = Mix([other for other in mix.rows if other.key != key])
    for index, (one, entry) in enumerate(parts):
        weight = blend_methods.named(found.method).sign(index) * one.weight * row.weight
        changed.add(entry, outputs, bounded(weight, 1.0)[0], one.blocks)
    mix.rows = changed.rows
    return found


def _ingredients(found: Blend, row: MixRow, outputs: Path) -> list[tuple[Ingredient, Entry]]:
    """The blend's ingredients, each with its adapter in the library."""
    entries = [entry for entry in library.entries(outputs) if entry.path != row.path]
    parts, missing = [], []
    for one in found.ingredients:
        entry = _match(one, entries)
        if entry is None:
            missing.append(one.name)
        else:
            parts.append((one, entry))
    if missing:
        raise AdapterError(
            tr(
                "{name} was made of {parts}, which the library does not have.",
                name=row.name,
                parts=", ".join(missing),
            ),
            do=tr("Add them to the library first."),
        )
    return parts


def _match(one: Ingredient, entries: list[Entry]) -> Entry | None:
    """The library's adapter with an ingredient's hash, or with its name if the recipe has no hash.

    Adapters with the ingredient's name are compared first.
    """
    for entry in sorted(entries, key=lambda entry: Path(entry.path).stem != one.name):
        if not one.sha256:
            return entry if Path(entry.path).stem == one.name else None
        try:
            if adapters.header(Path(entry.path)).metadata.get("sshs_model_hash") == one.sha256:
                return entry
        except StudioError:
            continue
    return None
