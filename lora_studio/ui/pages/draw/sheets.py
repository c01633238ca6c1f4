"""What a sheet is drawn from: two things that its columns and rows vary, of those that ``sampling.axes`` declares."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from lora_studio.errors import SettingsError
from lora_studio.jobs.image_spec import Placed
from lora_studio.language import english, tr
from lora_studio.runs.library import Entry, Origin
from lora_studio.sampling import axes, recipe
from lora_studio.sampling.axes import Axis, Kind
from lora_studio.ui.pages.draw import named, order
from lora_studio.ui.pages.draw.order import DrawFields, DrawOrder
from lora_studio.ui.pages.library import cards
from lora_studio.ui.scene.mixture import Mix

NONE = "none"
TITLES: dict[str, str] = {
    "prompt": tr("Prompts"),
    "seed": tr("Seeds"),
    "adapter": tr("Adapters"),
    "weight": tr("Weight of an adapter"),
    "checkpoint": tr("Saved states"),
    "guidance": tr("Guidance"),
    "steps": tr("Steps"),
}
"""The kinds of axes, for people."""
CHOSEN = ("adapter", "checkpoint")
"""Those whose values are adapters."""
USUAL = {
    "prompt": "cat\nhouse\nflower",
    "seed": "1, 2, 3, 4",
    "weight": "0, 0.5, 1, 1.5",
    "guidance": "1, 3, 5, 7",
    "steps": "5, 10, 20, 30",
}
"""What stands in the field of values once a kind is chosen."""
MOST = 100
"""Pictures of a sheet."""


class AxisFields(NamedTuple):
    """One axis as the page's fields have it.

    Attributes:
        kind: of ``TITLES``, or ``NONE``.
        typed: its values, where they are words or numbers: prompts in lines of their own, numbers with commas between.
        chosen: its adapters, by their keys in the library.
        subject: key of the adapter whose weight it varies.
    """

    kind: str
    typed: str = ""
    chosen: Sequence[str] = ()
    subject: str = ""


class PlacedAdapters:
    """The adapters of a sheet, each under a name of its own, which its axes, labels and recipe have: in English."""

    def __init__(self, entries: Sequence[Entry], keys: dict[str, Entry]):
        self.entries, self.keys = entries, keys
        self.placed: list[Placed] = []

    def add(self, entry: Entry, weight: float, blocks: dict[str, float] | None = None) -> str:
        """Adds an adapter, unless it is there; returns its name."""
        for one in self.placed:
            if one.path == entry.path:
                return one.name
        short, taken = english(cards.title(entry)), {one.name for one in self.placed}
        name = next(name for name in (short, cards.stem(entry), entry.path) if name not in taken)
        self.placed.append(Placed(path=entry.path, weight=weight, name=name, blocks=blocks or {}))
        return name

    def of(self, key: str) -> Entry:
        """The library's adapter with that key.

        Raises:
            SettingsError: none is chosen, or it is gone.
        """
        if entry := self.keys.get(key):
            return entry
        raise SettingsError(
            tr("An adapter of the sheet is not chosen, or gone."), where=tr("Sheet"), do=tr("Choose it again.")
        )


def sheet(asked: DrawFields, mix: Mix, sides: Sequence[AxisFields], entries: dict[str, Entry]) -> DrawOrder:
    """The order of a sheet.

    Args:
        sides: columns and rows.
        entries: the library, by the keys of its adapters.

    Raises:
        SettingsError: an axis lacks a value or has one that makes no sense, both vary the same, or the sheet would have
            too many pictures.
        StudioError: as ``order.order``.
    """
    if asked.start:
        raise SettingsError(
            tr("A sheet cannot start from a picture."), where=tr("Sheet"), do=tr("Take the picture away first.")
        )
    known = list(entries.values())
    prompt, told = named.in_prompt((asked.prompt or "").strip(), known)
    used, paths = PlacedAdapters(known, entries), {entry.path: entry for entry in known}
    for row in mix.rows:
        used.add(paths[row.path], row.weight, row.factors)
    for one in told:
        used.add(one.entry, one.weight)
    for one in order.embeddings(asked, used.placed, known):
        used.add(one.entry, one.weight)
    across, *rest = [_axis(one, used) for one in sides if one.kind != NONE] or [None]
    if across is None:
        raise SettingsError(tr("The sheet has no columns."), where=tr("Sheet"), do=tr("Choose what they vary."))
    down = rest[0] if rest else None
    if len(across.values) * len(down.values if down else "1") > MOST:
        raise SettingsError(
            tr("The sheet would have more than {most} pictures.", most=MOST),
            where=tr("Sheet"),
            do=tr("Use fewer values."),
        )
    placed = [{"name": one.name, "weight": one.weight} for one in used.placed]
    recipe.grid(x=across, y=down, adapters=placed)
    spec = order.spec(asked._replace(count=1), prompt, used.placed)
    return DrawOrder(spec.model_copy(update={"across": across, "down": down, "forming": False}), asked.prompt or "")


def _axis(told: AxisFields, used: PlacedAdapters) -> Axis:
    title = TITLES[told.kind]
    if told.kind in CHOSEN:
        if not told.chosen:
            raise SettingsError(
                tr("{title} of the sheet are not chosen.", title=title), where=title, do=tr("Choose two or more.")
            )
        return Axis(cast(Kind, told.kind), tuple(used.add(used.of(key), 1.0) for key in told.chosen))
    if told.kind == "prompt":
        values: Any = tuple(line.strip() for line in (told.typed or "").splitlines() if line.strip())
        if not values:
            raise SettingsError(tr("The sheet has no prompts."), where=title, do=tr("Write each in a line of its own."))
        return Axis("prompt", values)
    numbers = ",".join(re.split(r"[\s,;]+", (told.typed or "").strip().strip(",;")))
    axis = axes.parse(f"{told.kind}={numbers}", title)
    return Axis(axis.kind, axis.values, _subject(told, used)) if told.kind == "weight" else axis


def _subject(told: AxisFields, used: PlacedAdapters) -> str:
    """The adapter whose weight an axis varies: that which is chosen, or else left to the sheet."""
    return used.add(used.of(told.subject), 1.0) if told.subject else ""


def states(run: str, entries: dict[str, Entry]) -> list[str]:
    """Keys of the saved states of a run, by their steps; each step once."""
    found = {
        entry.step: key
        for key, entry in entries.items()
        if entry.origin is Origin.CHECKPOINT and entry.run == run and entry.step is not None
    }
    return [found[step] for step in sorted(found)]
