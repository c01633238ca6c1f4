"""A sweep: which settings a study varies, which it fixes, and how its trials are chosen. Read from a TOML file:

title = "Rank and learning rate"
preset = "quick-look"        # what the settings are layered over
sampler = "grid"             # grid, random or tpe

[settings]                   # the same in all trials
steps = 160

[axes]                       # what differs
rank = [4, 8, 16]
learning_rate = {low = 1e-4, high = 2e-3, log = true, points = 3}
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from lora_studio.config import presets
from lora_studio.config.declaration import Group
from lora_studio.config.settings import Settings, check, layer
from lora_studio.config.slices import SLICE_OF, SLICES
from lora_studio.config.specs import SPECS, did_you_mean, mistake, require_known
from lora_studio.errors import SettingsError
from lora_studio.language import tr

FOLDER = presets.FOLDER / "sweeps"
MOST_POINTS = 1000
"""Of a grid."""
_DEFAULT_TRIALS = 20
_BARE = {"preview_every": 0, "validate_every": 0, "checkpoint_every": 0, "keep_checkpoints": 1}
"""What a trial does without, unless its sweep says otherwise."""
_NOT_VARIED = {
    **dict.fromkeys(("data", "name", "device", "gpus"), tr("it says where a trial is made, not how")),
    **dict.fromkeys(
        ("base", "vae", "text_encoders", "prediction", "zero_snr", "flow_shift", "clip_skip"),
        tr("measures of different base models have different scales"),
    ),
    **dict.fromkeys(
        ("precision", "quantize", "tiled_vae"),
        tr("the base model, which all trials are measured by, would draw otherwise"),
    ),
    **dict.fromkeys(
        ("resolution", "bucket_step", "max_upscale", "nested"),
        tr("trials would be measured against training pictures of other sizes, or against other pictures"),
    ),
    "trigger": tr("the prompts that are drawn have it, so that trials would be judged by different prompts"),
    **{
        key: tr("trials are compared by what they draw, so all must draw and be measured alike")
        for key in SPECS
        if SLICES[SLICE_OF[key]].group in (Group.PREVIEWS, Group.EVALUATION)
    },
}
"""Settings in which trials must not differ, else they cannot be compared -> why."""

_EXPECTED = {"tuple_type": tr("a list of values, or a table with low and high"), "dict_type": tr("a table")}
"""What pydantic's errors mean in a file."""

Scalar = bool | int | float | str
Params = dict[str, Any]
"""The values of the axes in one trial, by the keys of their settings."""


class ValueRange(BaseModel):
    """A range of numbers, both ends included."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: float
    high: float
    log: bool = False
    """Whether factors count, and not differences."""
    points: int | None = Field(None, ge=2, le=100)
    """How many values a grid takes of it."""

    @model_validator(mode="after")
    def _require_order(self) -> ValueRange:
        if self.low >= self.high:
            raise ValueError(tr("low must be less than high"))
        if self.log and self.low <= 0:
            raise ValueError(tr("low must be above 0 where log is true"))
        return self

    def values(self, whole: bool) -> list[float]:
        """The grid's values, evenly spaced; ``whole`` rounds them."""
        count = self.points or 2
        ends = [math.log(end) if self.log else end for end in (self.low, self.high)]
        spaced = [ends[0] + (ends[1] - ends[0]) * i / (count - 1) for i in range(count)]
        found = [self.low, *(math.exp(x) if self.log else x for x in spaced[1:-1]), self.high]
        return list(dict.fromkeys(round(x) if whole else float(f"{x:.4g}") for x in found))


Axis = Annotated[
    Union[Annotated[ValueRange, Tag("range")], Annotated[tuple[Scalar, ...], Tag("values")]],
    Discriminator(lambda raw: "range" if isinstance(raw, dict | ValueRange) else "values"),
]


class Sweep(BaseModel):
    """What a study does. Immutable; made by ``read`` or ``checked``, which check it against the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    """Of the file, without its ending."""
    title: str = ""
    blurb: str = ""
    preset: str = ""
    """The preset that its settings are layered over."""
    sampler: Literal["grid", "random", "tpe"] = "grid"
    """``grid`` takes all combinations, ``random`` draws them, ``tpe`` draws where earlier trials were good."""
    trials: int | None = Field(None, ge=1, le=10_000)
    """How many, where they are drawn."""
    prune: bool | None = None
    """Whether a trial that falls behind is stopped at an evaluation; by default with ``tpe`` alone."""
    seeds: int = Field(1, ge=1, le=16)
    """Training seeds of each trial. What is measured is averaged over them."""
    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Of the draws of trials."""
    settings: dict[str, Any] = {}
    """The same in all trials."""
    axes: dict[str, Axis] = Field(min_length=1)
    """What differs, by the keys of settings: a list of values, or a range of numbers."""

    @property
    def total(self) -> int:
        """How many trials there are."""
        if self.sampler != "grid":
            return self.trials or _DEFAULT_TRIALS
        return math.prod(len(self.values(key)) for key in self.axes)

    @property
    def prunes(self) -> bool:
        """Whether trials are stopped early."""
        return self.sampler == "tpe" if self.prune is None else self.prune

    def values(self, key: str) -> list[Any]:
        """The values of an axis on the grid."""
        axis = self.axes[key]
        return axis.values(SPECS[key].kind == "integer") if isinstance(axis, ValueRange) else list(axis)

    def points(self) -> Iterator[Params]:
        """All points of the grid, the last axis varying first."""
        for values in itertools.product(*(self.values(key) for key in self.axes)):
            yield dict(zip(self.axes, values, strict=True))

    def base(self, **overrides: Any) -> Settings:
        """The settings that all trials have in common, with ``overrides``.

        Raises:
            SettingsError: there is no such preset, or a setting is wrong.
        """
        layers = [presets.before(self.preset or None), _BARE, self.settings, overrides]
        return check(functools.reduce(layer, layers, {}), where=f"{self.name}.toml, settings" if self.name else "")

    def run_settings(
        self,
        base: Settings,
        params: Mapping[str, Any],
        seed: int = 0,
        settled: Callable[[Settings], Settings] = lambda settings: settings,
    ) -> Settings:
        """The settings of one of a trial's runs. It is judged at its end, and four times where trials are pruned.

        Args:
            seed: which of its training seeds, counted from 0.
            settled: gives settings whose length is in epochs the steps that those are.

        Raises:
            SettingsError: these values do not go together.
        """
        changed = settled(base.changed(**params))
        steps = changed.run.steps
        judged = (
            {}
            if "evaluate_every" in self.settings
            else {"evaluate_every": math.ceil(steps / 4) if self.prunes else steps}
        )
        return changed.changed(seed=changed.run.seed + seed, **judged)

    def chosen(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that make a trial what it is, for a run of one's own: the preset's, the sweep's, its values."""
        return layer(layer(presets.before(self.preset or None), self.settings), params)


def read(path: Path) -> Sweep:
    """The sweep in one file.

    Raises:
        SettingsError: the file cannot be read, or something in it is wrong; names the file and the field.
    """
    return checked({**presets.table(path), "name": path.stem}, path.name)


def available(folder: Path = FOLDER) -> list[Sweep]:
    """Every sweep of ``folder``, in the order of their file names."""
    return [read(path) for path in sorted(folder.glob("*.toml"))]


def find(name: str, folder: Path = FOLDER) -> Sweep:
    """The sweep called ``name``, or the one in a TOML file at the path ``name``.

    Raises:
        SettingsError: there is none, or it is wrong.
    """
    for path in (folder / f"{name}.toml", Path(name)):
        if path.suffix == ".toml" and os.path.isfile(path):
            return read(path)
    if Path(name).suffix == ".toml":
        raise SettingsError(tr("There is no such sweep file."), where=name, do=tr("Check its path."))
    known = [path.stem for path in sorted(folder.glob("*.toml"))]
    raise SettingsError(tr("There is no sweep named {name!r}.", name=name), do=did_you_mean(name, known))


def checked(table: dict[str, Any], file: str) -> Sweep:
    """The sweep in ``table``, with its values as the settings have them. ``file`` is named in errors.

    Raises:
        SettingsError: something is wrong; names the file and the field.
    """
    try:
        sweep = Sweep.model_validate(table)
    except ValidationError as error:
        raise _malformed(error.errors()[0], file) from None
    require_known(sweep.settings, where=f"{file}, settings")
    axes = {key: _axis(key, axis, f"{file}, axes.{key}") for key, axis in sweep.axes.items()}
    sweep = sweep.model_copy(update={"axes": axes})
    _require_sense(sweep, file)
    return sweep


def _malformed(error: Any, file: str) -> SettingsError:
    """The error for one of pydantic's."""
    place = ".".join(str(part) for part in error["loc"] if part not in ("range", "values"))
    if error["type"] == "extra_forbidden":
        known = list(ValueRange.model_fields) if place.startswith("axes.") else [*Sweep.model_fields][1:]
        word = str(error["loc"][-1])
        return SettingsError(
            tr("{file} has the unknown entry {place!r}.", file=file, place=place),
            where=file,
            do=did_you_mean(word, known),
        )
    if error["type"] in ("missing", "too_short") and place == "axes":
        do = tr("Name at least one setting and its values under [axes], such as rank = [4, 8, 16].")
        return SettingsError(tr("{file} varies nothing.", file=file), where="axes", do=do)
    if "values" in error["loc"][:-1]:
        what = tr("{key} must have numbers, texts, true or false as its values.", key=error["loc"][1])
        return SettingsError(what, where=f"{file}, axes.{error['loc'][1]}", do=tr("Fix that line."))
    if error["type"] == "missing":
        return SettingsError(tr("{place} is missing.", place=place), where=file, do=tr("Add it to that line."))
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    what = tr("{place}: must be {expected}.", place=place, expected=_EXPECTED.get(error["type"], message))
    if error["type"] == "value_error":
        what = tr("{place}: {why}.", place=place, why=message)
    return SettingsError(what, where=file, do=tr("Fix that line."))


def _axis(key: str, axis: ValueRange | tuple[Scalar, ...], where: str) -> ValueRange | tuple[Scalar, ...]:
    """The axis with its values as the setting has them. Raises SettingsError where it takes no such values."""
    require_known([key], where)
    spec = SPECS[key]
    if why := _NOT_VARIED.get(key) or (tr("an axis takes single values") if spec.kind == "lines" else ""):
        raise SettingsError(
            tr("{key} cannot be varied: {why}.", key=key, why=why), where=where, do=tr("Set it under [settings].")
        )
    if isinstance(axis, ValueRange):
        if spec.kind not in ("integer", "number"):
            do = tr(
                "List its values, such as {key} = {values}.", key=key, values=str(list(spec.choices) or [spec.default])
            )
            raise SettingsError(tr("{key} is no number, so it has no low and high.", key=key), where=where, do=do)
        for end in (axis.low, axis.high):
            _value(key, end, where)
        return axis
    values = tuple(_value(key, value, where) for value in axis)
    if not values or len(set(values)) < len(values):
        what = tr("{key} has the same value twice.", key=key) if values else tr("{key} has no values.", key=key)
        raise SettingsError(what, where=where, do=tr("List each value once."))
    return values


def _value(key: str, value: Any, where: str) -> Any:
    try:
        return getattr(SLICES[SLICE_OF[key]](**{key: value}), key)
    except ValidationError as error:
        raise mistake(key, error.errors()[0], where) from None


def _require_sense(sweep: Sweep, file: str) -> None:
    """Raises SettingsError where parts of a sweep contradict each other."""
    if twice := next((key for key in sweep.axes if key in sweep.settings), ""):
        what = tr("{key} is under [settings] and under [axes].", key=twice)
        raise SettingsError(what, where=f"{file}, axes.{twice}", do=tr("Leave one of them out."))
    if "seed" in sweep.axes and sweep.seeds > 1:
        what = tr("seed is an axis, and seeds is {seeds}.", seeds=sweep.seeds)
        raise SettingsError(what, where=f"{file}, seeds", do=tr("Leave one of them out."))
    if sweep.sampler == "grid":
        _require_grid(sweep, file)
    sweep.base()


def _require_grid(sweep: Sweep, file: str) -> None:
    if sweep.trials is not None:
        do = tr('Leave trials out, or choose sampler = "random".')
        raise SettingsError(tr("A grid takes all its points."), where=f"{file}, trials", do=do)
    for key, axis in sweep.axes.items():
        if isinstance(axis, ValueRange) and axis.points is None:
            do = tr("Add points = 3, list the values, or choose another sampler.")
            raise SettingsError(
                tr("A grid does not know which values of {key} to take.", key=key), where=f"{file}, axes.{key}", do=do
            )
    if sweep.total > MOST_POINTS:
        do = tr('Take fewer values, or draw some of them with sampler = "random".')
        raise SettingsError(
            tr(
                "The grid has {total:,} points; {most:,} are the most.",
                total=sweep.total,
                most=MOST_POINTS,
            ),
            where=f"{file}, axes",
            do=do,
        )
    base = sweep.base()
    for params in sweep.points():
        try:
            sweep.run_settings(base, params)
        except SettingsError as error:
            point = [f"{key} = {value}" for key, value in params.items()]
            raise SettingsError(
                tr("{what} That is so at {point}.", what=error.what, point=point), where=f"{file}, axes", do=error.do
            ) from None
