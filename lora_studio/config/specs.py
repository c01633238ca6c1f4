"""The settings as surfaces need them: by key, with label, help, kind, bounds and choices."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from lora_studio.config.declaration import Choice, Group, Level, NamedChoice, declaration_of
from lora_studio.config.slices import FIELDS, SLICE_OF, SLICES
from lora_studio.errors import SettingsError
from lora_studio.language import declared, either, english, in_sequence, number, tr

_SHORT = reprlib.Repr()
"""For values in messages: a file of unknown origin may hold one of any size."""
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200


@dataclass(frozen=True)
class Spec:
    """One setting as surfaces need it."""

    key: str
    label: str
    about: str
    """What it does."""
    group: Group
    level: Level
    unit: str
    default: Any
    kind: Literal["text", "integer", "number", "switch", "choice", "lines"]
    low: float | None
    high: float | None
    only: Mapping[str, Sequence[Any]]
    """Other settings, and the values of them with which this one counts at all."""
    with_any: tuple[str, ...]
    """Other settings, one of which has to be on or above 0."""

    @property
    def help(self) -> str:
        """What it does, and where it has an effect."""
        return in_sequence([self.about, *_conditions(self.only)])

    @property
    def options(self) -> tuple[Choice, ...]:
        """The present choices, with titles and help; empty for other kinds of settings."""
        choices = declaration_of(FIELDS[self.key]).choices()
        return tuple(NamedChoice(one.name, declared(one.title), declared(one.help)) for one in choices)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of ``options``."""
        return tuple(option.name for option in self.options)

    def title(self, value: Any) -> str:
        """A choice's name for people; any other value as text."""
        return next((option.title for option in self.options if option.name == value), _title(value))


def plain(value: Any) -> str:
    """A value as ``--set`` takes it: a switch is on or off."""
    return ("off", "on")[value] if isinstance(value, bool) else str(value)


def _title(value: Any) -> str:
    """A value for people that is none of several choices."""
    return (tr("off"), tr("on"))[value] if isinstance(value, bool) else str(value)


def _kind(field: FieldInfo) -> Literal["text", "integer", "number", "switch", "choice", "lines"]:
    if list(declaration_of(field).choices()):
        return "choice"
    if field.annotation is str:
        return "text"
    if field.annotation is bool:
        return "switch"
    if field.annotation is int:
        return "integer"
    return "number" if field.annotation is float else "lines"


def _bound(field: FieldInfo, *names: str) -> float | None:
    """The first of pydantic's bounds ``names`` that the field has."""
    found = [getattr(part, name, None) for name in names for part in field.metadata]
    return next((bound for bound in found if bound is not None), None)


def _conditions(only: Mapping[str, Sequence[Any]]) -> list[str]:
    """With which other settings a setting counts, a sentence each."""
    found = []
    for key, values in only.items():
        titles = {option.name: declared(option.title) for option in declaration_of(FIELDS[key]).choices()}
        label = declared(FIELDS[key].title or "")
        listed = either([titles.get(one, _title(one)) for one in values])
        found.append(tr("Only where {label} is {listed}.", label=label, listed=listed))
    return found


def _spec(key: str) -> Spec:
    field = FIELDS[key]
    said = declaration_of(field)
    return Spec(
        key,
        declared(field.title or ""),
        declared(field.description or ""),
        SLICES[SLICE_OF[key]].group,
        said.level,
        declared(said.unit),
        field.get_default(call_default_factory=True),
        _kind(field),
        _bound(field, "ge", "gt"),
        _bound(field, "le", "lt"),
        said.only,
        said.with_any,
    )


SPECS: dict[str, Spec] = {key: _spec(key) for key in FIELDS}
"""Every setting in the order of its declaration, by key."""
OF_BASE = ("base", "vae", "text_encoders", "prediction", "zero_snr", "flow_shift", "clip_skip")
"""The settings that say which base model is loaded and how it is read. Whatever draws needs all of them."""


def did_you_mean(word: str, known: list[str] | tuple[str, ...], listed: int = 0) -> str:
    """``"Did you mean rank?"`` for the nearest known word, otherwise a list of all, or of the first ``listed``."""
    if near := nearest(word, known):
        return tr("Did you mean {word}?", word=near)
    if 0 < listed < len(known):
        return tr("There are {count}, among them: {listed}.", count=len(known), listed=", ".join(known[:listed]))
    return tr("There are: {listed}.", listed=", ".join(known))


def nearest(word: str, known: Sequence[str]) -> str:
    """The known word that ``word`` may be meant for; empty if none is like it."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, known, n=1, cutoff=0.6)), "")


def allowed(key: str) -> str:
    """What the setting ``key`` takes, as the end of a sentence: ``a whole number from 1 to 1,024``."""
    spec = SPECS[key]
    if spec.kind == "choice":
        return tr("one of: {listed}", listed=", ".join(map(str, spec.choices)))
    if spec.kind in ("integer", "number"):
        return _number(spec)
    return {"switch": tr("on or off"), "text": tr("text"), "lines": tr("a list of texts")}[spec.kind]


def _number(spec: Spec) -> str:
    """Which numbers a setting takes."""
    low, high = (number(int(bound) if bound == int(bound) else bound) for bound in (spec.low or 0, spec.high or 0))
    above, below = (_bound(FIELDS[spec.key], name) is not None for name in ("gt", "lt"))
    span = {
        (False, False): tr("from {low} to {high}", low=low, high=high),
        (True, False): tr("above {low} and at most {high}", low=low, high=high),
        (False, True): tr("at least {low} and below {high}", low=low, high=high),
        (True, True): tr("above {low} and below {high}", low=low, high=high),
    }[above, below]
    if spec.unit and english(spec.unit) not in spec.key:
        span = tr("{span} {unit}", span=span, unit=spec.unit)
    return tr("a whole number {span}", span=span) if spec.kind == "integer" else tr("a number {span}", span=span)


def said(error: Mapping[str, Any]) -> str:
    """What a validator of the studio says in one of pydantic's errors, a sentence without its full stop; empty for an
    error of pydantic's own.
    """
    return error["ctx"]["error"].args[0] if error["type"] == "value_error" else ""


def mistake(key: str, error: Mapping[str, Any], where: object = "") -> SettingsError:
    """The error for a value that the setting ``key`` does not take.

    Args:
        error: one of pydantic's, of which only what the studio itself says is repeated.
    """
    value = error["input"]
    if own := said(error):
        what = tr("{key}: {fault}.", key=key, fault=own)
    else:
        shown = _SHORT.repr(value)
        what = tr("{key} must be {allowed}; it is {value}.", key=key, allowed=allowed(key), value=shown)
    near = nearest(str(value), list(map(str, SPECS[key].choices)))
    return SettingsError(
        what, where=where or key, do=tr("Did you mean {word}?", word=near) if near else SPECS[key].help
    )


def require_known(keys: Any, where: object = "") -> None:
    """Raises SettingsError for the first of ``keys`` that is no setting."""
    for key in keys:
        if key not in SPECS:
            raise SettingsError(
                tr("There is no setting named {key!r}.", key=key), where=where, do=did_you_mean(str(key), list(SPECS))
            )


def from_text(key: str, text: str) -> Any:
    """The value of the setting ``key`` that was typed as ``text`` after ``--set key=``.

    Lists take ``|`` between their items, switches take on/off, true/false, yes/no, 1/0.

    Raises:
        SettingsError: the key is unknown, or the text is not a value of it.
    """
    require_known([key])
    spec = SPECS[key]
    if spec.kind == "lines":
        return [part.strip() for part in text.split("|") if part.strip()]
    try:
        accepted: Any = cast(Any, Literal)[spec.choices] if spec.choices else FIELDS[key].annotation
        return TypeAdapter(accepted).validate_python(text)
    except ValidationError as error:
        raise mistake(key, error.errors()[0]) from None
