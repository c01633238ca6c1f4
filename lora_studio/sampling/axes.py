"""What the columns and rows of a grid vary, and the cells that follow. No torch."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast, get_args

from pydantic import BaseModel, ConfigDict, model_validator

from lora_studio.adapters.recipe import Weight
from lora_studio.config.specs import SPECS, did_you_mean
from lora_studio.errors import SettingsError
from lora_studio.language import tr
from lora_studio.sampling.image_settings import ImageSettings

Kind = Literal["prompt", "seed", "adapter", "weight", "checkpoint", "guidance", "steps"]
KINDS: tuple[str, ...] = get_args(Kind)


def _bounds(key: str) -> tuple[float, float]:
    low, high = SPECS[key].low, SPECS[key].high
    assert low is not None and high is not None, f"the setting {key} has no bounds"
    return low, high


_BOUNDS = {
    "weight": (-10.0, 10.0),
    "seed": _bounds("preview_seed"),
    "guidance": _bounds("guidance"),
    "steps": _bounds("preview_steps"),
}
_WHOLE = ("seed", "steps")
CELLS = 1000
"""A grid has at most so many."""


class Cell(NamedTuple):
    """One image of many that are drawn together. ``weights``: one for each adapter."""

    prompt: str
    seed: int
    weights: tuple[float, ...] = ()
    guidance: float = SPECS["guidance"].default
    steps: int = SPECS["preview_steps"].default


@dataclass(frozen=True)
class Axis:
    """``kind`` of thing, its ``values`` from left to right or from top to bottom, and of a weight whose it is: ""
    leaves that to the grid.
    """

    kind: Kind
    values: tuple[str | int | float, ...]
    subject: str = ""

    def __post_init__(self):
        if not self.values or not all(_fits(self.kind, value) for value in self.values):
            raise ValueError(f"the axis {self.kind} cannot take {list(self.values)}")

    @property
    def labels(self) -> list[str]:
        """As they are shown beside the images."""
        names = {
            "seed": "seed {}",
            "weight": f"{self.subject or 'weight'} {{:g}}",
            "guidance": "guidance {:g}",
            "steps": "{} steps",
        }
        return [names.get(self.kind, "{}").format(value) for value in self.values]


def parse(text: str, where: str = "") -> Axis:
    """``KIND=VALUE,VALUE…``; a value with a comma is written in double quotes; ``weight:ADAPTER=…`` says whose weight
    it is.

    >>> parse('prompt="a cat, asleep",a dog').values
    ('a cat, asleep', 'a dog')

    Raises:
        SettingsError: there is no such kind, no value, or one that is out of its bounds.
    """
    head, equals, tail = text.partition("=")
    kind, _, subject = head.strip().partition(":")
    if not equals:
        raise SettingsError(
            tr("{text!r} is no axis.", text=text),
            where=where,
            do=tr("Write for example {example}.", example=f"{where or '--x'} weight=0,0.5,1"),
        )
    if kind not in KINDS:
        raise SettingsError(
            tr("A grid has no axis {kind!r}.", kind=kind),
            where=where,
            do=tr("{guess} There are {kinds}.", guess=did_you_mean(kind, KINDS), kinds=", ".join(KINDS)),
        )
    if subject and kind != "weight":
        raise SettingsError(
            tr("{kind} takes nothing behind a colon.", kind=kind),
            where=where,
            do=tr("Only a weight does: {example}.", example="weight:style.safetensors=0,0.5,1"),
        )
    try:
        values = [value.strip() for row in csv.reader([tail], skipinitialspace=True) for value in row]
    except csv.Error:
        values = []
    if not values or not all(values):
        raise SettingsError(
            tr("An axis lacks a value in {text!r}.", text=text),
            where=where,
            do=tr("Write for example {example}.", example=f"{kind}=A,B"),
        )
    return Axis(cast(Kind, kind), tuple(_value(kind, value, where) for value in values), subject)


def spread(start: float, stop: float, count: int) -> tuple[float, ...]:
    """``count`` weights from ``start`` to ``stop`` at even distances, rounded to what a label can show."""
    return tuple(round(start + (stop - start) * index / max(1, count - 1), 4) for index in range(count))


def _value(kind: str, text: str, where: str) -> str | int | float:
    if kind not in _BOUNDS:
        return text
    try:
        value = int(text) if kind in _WHOLE else float(text)
    except ValueError:
        value = math.nan
    if not _fits(kind, value):
        low, high = _BOUNDS[kind]
        raise SettingsError(
            tr("{text!r} is no {kind}.", text=text, kind=kind),
            where=where,
            do=tr("Give whole numbers from {low:g} to {high:g}.", low=low, high=high)
            if kind in _WHOLE
            else tr("Give numbers from {low:g} to {high:g}.", low=low, high=high),
        )
    return value


def _fits(kind: str, value: str | int | float) -> bool:
    if kind not in _BOUNDS:
        return isinstance(value, str) and bool(value)
    low, high = _BOUNDS[kind]
    return isinstance(value, int if kind in _WHOLE else int | float) and low <= value <= high


class GridAdapter(BaseModel):
    """An adapter of a grid, under the name that the axes know it by; ``sha256`` of its file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    weight: Weight = 1.0
    sha256: str = ""


class Grid(ImageSettings):
    """All that makes a grid: the recipe in its image's header. What no axis varies is the same in every cell.

    An adapter that an axis names is off in every other column or row of it.

    Raises:
        ValueError: pydantic's; an axis varies what the other one does, or an adapter that is not there.
    """

    kind: Literal["grid"] = "grid"
    x: Axis
    y: Axis | None = None
    adapters: tuple[GridAdapter, ...] = ()
    base: str = ""
    base_sha256: str = ""
    parts: dict[str, str] = {}
    """Files that completed the base model or replaced parts of it: name -> SHA-256."""
    prompt: str = ""
    clip_skip: int = 0
    """That its prompts are read with; 0 in those of earlier versions."""
    prompt_weights: bool = False
    """Sheets of earlier versions, which do not say, read prompts as they are written."""
    seed: int = SPECS["preview_seed"].default
    prediction: str = SPECS["prediction"].default
    zero_snr: str = SPECS["zero_snr"].default
    flow_shift: float = SPECS["flow_shift"].default
    version: str = ""
    """The studio's."""

    @property
    def axes(self) -> list[Axis]:
        return [self.x] if self.y is None else [self.x, self.y]

    @property
    def cells(self) -> list[list[Cell]]:
        """Row by row."""
        rows = [{}] if self.y is None else [{self.y: value} for value in self.y.values]
        return [[self._cell({self.x: value, **row}) for value in self.x.values] for row in rows]

    @model_validator(mode="after")
    def _axes_make_sense(self) -> Grid:
        names, kinds = [one.name for one in self.adapters], [axis.kind for axis in self.axes]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(tr("two adapters are called {name!r}", name=twice))
        for axis in self.axes:
            for name in (
                [axis.subject] if axis.subject else axis.values if axis.kind in ("adapter", "checkpoint") else []
            ):
                if name not in names:
                    raise ValueError(tr("an axis names {name!r}, but there is no such adapter", name=name))
        subjects = [tuple(self._subjects(axis)) for axis in self.axes if axis.kind == "weight"]
        if (
            len(set(kinds)) < len(kinds)
            and kinds[0] not in ("weight", "adapter", "checkpoint")
            or len(set(subjects)) < len(subjects)
        ):
            raise ValueError(tr("both axes vary the same {kind}", kind=kinds[0]))
        if len(self.x.values) * len(self.y.values if self.y else "1") > CELLS:
            raise ValueError(tr("it would have more than {most} images", most=CELLS))
        return self

    def _subjects(self, axis: Axis) -> list[str]:
        """The adapters whose weight ``axis`` varies: the one it names, or those of the other axis, or the only one
        there is.
        """
        if axis.subject:
            return [axis.subject]
        switched = self._switched()
        if not switched and len(self.adapters) != 1:
            raise ValueError(
                tr("a weight axis has to say whose weight it is")
                if self.adapters
                else tr("there is no adapter whose weight could vary")
            )
        return sorted(switched) or [self.adapters[0].name]

    def _switched(self) -> set[str]:
        return {str(name) for axis in self.axes if axis.kind in ("adapter", "checkpoint") for name in axis.values}

    def _cell(self, picked: dict[Axis, Any]) -> Cell:
        chosen: dict[str, Any] = {axis.kind: value for axis, value in picked.items()}  # an axis has checked their types
        weights = {one.name: one.weight for one in self.adapters}
        for axis, value in picked.items():
            if axis.kind == "weight":
                weights |= dict.fromkeys(self._subjects(axis), value)
        on = {value for axis, value in picked.items() if axis.kind in ("adapter", "checkpoint")}
        weights |= dict.fromkeys(self._switched() - on, 0.0)
        return Cell(
            chosen.get("prompt", self.prompt),
            chosen.get("seed", self.seed),
            tuple(weights.values()),
            chosen.get("guidance", self.guidance),
            chosen.get("steps", self.steps),
        )
