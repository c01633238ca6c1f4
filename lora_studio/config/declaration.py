"""How a setting is declared: its label, help, unit, bounds and choices, in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from lora_studio import files
from lora_studio.language import declared, tr


class Level(StrEnum):
    """Who a setting is for."""

    JOB = "job"
    """What a run is about: at the top of the page."""
    BASIC = "basic"
    """Worth considering for every style: always visible."""
    ADVANCED = "advanced"
    """Folded away."""
    EXPERT = "expert"
    """Folded away, below the advanced ones."""


class Group(StrEnum):
    """The heading of a setting, in the order of the form."""

    RUN = "Run"
    DATASET = "Dataset"
    AUGMENTATION = "Augmentation"
    ADAPTER = "Adapter"
    NOISE = "Noise"
    LOSS = "Loss"
    SLIDER = "Slider"
    OPTIMIZER = "Optimizer"
    PREVIEWS = "Previews"
    EVALUATION = "Judging"
    SAVING = "Saving"
    MACHINE = "Machine"

    @property
    def heading(self) -> str:
        """It for people."""
        return declared(self.value)


class Choice(Protocol):
    """One value of a setting that is chosen from a list."""

    @property
    def name(self) -> str:
        """The value itself."""

    @property
    def title(self) -> str:
        """Its name for people."""

    @property
    def help(self) -> str:
        """What it is good for: a clause without a full stop; may be empty."""


class NamedChoice(NamedTuple):
    """A choice that is declared with its setting."""

    name: str
    title: str
    help: str = ""


class _MoreThanZero(tuple[str, ...]):
    """Of a setting's values all that are more than 0; shown as its one item."""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and value > 0


MORE_THAN_ZERO = _MoreThanZero((tr("more than 0"),))
"""For ``only``."""


@dataclass(frozen=True)
class Declaration:
    """What a setting's declaration says besides pydantic's own fields."""

    level: Level
    unit: str
    choices: Callable[[], Iterable[Choice]]
    only: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Other settings, and the values of them with which this one counts at all."""
    with_any: tuple[str, ...] = ()
    """Other settings, one of which has to be on or above 0."""


def setting(
    default: Any,
    label: str,
    help: str,
    level: Level = Level.ADVANCED,
    unit: str = "",
    choices: Mapping[str, str] | Callable[[], Iterable[Choice]] | None = None,
    only: Mapping[str, Sequence[Any]] | None = None,
    with_any: tuple[str, ...] = (),
    **bounds: Any,
) -> Any:
    """One setting, as the form, the command line and the docs show it.

    Args:
        choices: the title of each value, for a setting that takes a few; or a function that lists the choices, where
            they belong to another room. It is called whenever they are needed, so that another choice may be added.
        only: other settings of which some values alone give this one an effect, with those values. With others a run
            says that it is ignored.
        with_any: other settings, without any of which this one has no effect: one has to be on or above 0.
        bounds: ``ge``, ``le``, ``gt``, ``lt``.
    """
    default = {"default_factory": default} if default is list else {"default": default}
    if isinstance(choices, Mapping):
        choices = partial(map, NamedChoice, choices.keys(), choices.values())
    extra: Any = {"setting": Declaration(level, unit, choices or tuple, only or {}, with_any)}
    return Field(title=label, description=help, json_schema_extra=extra, **default, **bounds)


class SettingsSlice(BaseModel):
    """The settings of one group. Immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    group: ClassVar[Group]

    @field_validator("*")
    @classmethod
    def _require_choice(cls, value: Any, info: ValidationInfo) -> Any:
        """Raises pydantic's error for a Literal where ``value`` is not among the setting's choices."""
        names = [repr(choice.name) for choice in declaration_of(cls.model_fields[info.field_name or ""]).choices()]
        if names and repr(value) not in names:
            expected = " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
            raise PydanticCustomError("choice", "Input should be {expected}", {"expected": expected})
        return value

    @field_validator("*")
    @classmethod
    def _require_text(cls, value: Any) -> Any:
        """Raises an error for text that is not valid Unicode: files of settings and logs cannot hold it."""
        for text in [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []:
            if isinstance(text, str) and not files.is_text(text):
                named = files.printable(text)
                raise ValueError(tr("{text} is not valid Unicode; rename that file or folder", text=named))
        return value


def declaration_of(field: FieldInfo) -> Declaration:
    """What ``setting`` kept of a field."""
    return cast(Any, field.json_schema_extra)["setting"]
