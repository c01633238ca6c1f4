"""What the fields of settings hold: a setting's value as its field shows it, and what was typed as settings again.

Numbers are typed into fields of text. A browser's own field for numbers hands on 1 for ``0,0001`` and 2 for 2.5, or
nothing at all, and what was typed cannot be told from what was meant.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, NamedTuple

from pydantic import ValidationError

from lora_studio.config.declaration import Level
from lora_studio.config.settings import Settings, key_of
from lora_studio.config.specs import SPECS, Spec, allowed
from lora_studio.language import tr
from lora_studio.ui import words

_NUMBER = re.compile(r"[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:e[+-]?\d+)?", re.ASCII)
_SPACED = re.compile(r"(?<=\d)[   '](?=\d{3}(?!\d))")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:[.,]\d{3})+", re.ASCII)
_LONGEST = 40
"""Characters of a number that is shown in a message."""


def to_field(spec: Spec, value: Any) -> Any:
    """A setting's value in the form that its field holds."""
    if spec.kind == "lines":
        return "\n".join(value) if isinstance(value, list | tuple) else value
    if spec.kind in ("integer", "number"):
        return in_full(value)
    return value


def in_full(value: Any) -> Any:
    """A number as it is typed: in full, without an exponent. Anything else as it is.

    >>> in_full(5e-05), in_full(16.0), in_full(1000), in_full("2,5")
    ('0.00005', '16', '1000', '2,5')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if isinstance(value, float) and not value.is_integer():
        return f"{Decimal(repr(value)):f}" if abs(value) < 1e15 else repr(value)
    return str(int(value))


def from_field(spec: Spec, raw: Any) -> Any:
    """The setting's value of a field's content. Invalid content is returned as it is, for validation to reject."""
    if spec.kind == "lines":
        return [line.strip() for line in (raw or "").splitlines() if line.strip()]
    if spec.kind in ("integer", "number"):
        return _from_typed(spec, raw)
    if spec.kind == "text":
        return (raw or "").strip()
    return raw


def _from_typed(spec: Spec, raw: Any) -> Any:
    if isinstance(raw, str):
        if not raw.strip():
            return None
        try:
            raw = number(raw, whole=spec.kind == "integer")
        except ValueError:
            return raw
    whole = spec.kind == "integer" and isinstance(raw, float) and raw.is_integer()
    return int(raw) if whole else raw


def number(typed: str, whole: bool = False) -> float:
    """The number that was typed, with a point or a comma before its decimals.

    >>> number("0,0001"), number("5e-5"), number(" −2.5 "), number("10 000", whole=True)
    (0.0001, 5e-05, -2.5, 10000.0)

    Args:
        whole: it is to be a whole number, so that a point may part its thousands as well as a comma.

    Raises:
        ValueError: it is none, or may be two; the message is a sentence for people.
    """
    plain = _SPACED.sub("", typed.strip().replace("−", "-").lower())
    shown = typed.strip()[:_LONGEST]
    if _THOUSANDS.fullmatch(plain) and (whole or "," in plain):
        one, other = re.sub("[.,]", "", plain), re.split("[.,]", plain)[0]
        raise ValueError(tr("“{shown}” can mean {one} or {other}: write which.", shown=shown, one=one, other=other))
    if not _NUMBER.fullmatch(plain):
        raise ValueError(tr("“{shown}” is not a number.", shown=shown))
    return float(plain.replace(",", "."))


class FormReading(NamedTuple):
    """The content of a form."""

    values: dict[str, Any]
    settings: Settings | None
    wrong: dict[str, str]
    """One sentence per invalid setting, which names it; under "" what is wrong between settings."""
    beside: dict[str, str]
    """The same for a place beside the field, which names it already."""
    usable: Settings | None
    """The settings with the default in place of what is invalid; None where that makes none."""


def read(raw: dict[str, Any]) -> FormReading:
    """The settings of the fields' values, or everything that is wrong with them."""
    values = {key: from_field(SPECS[key], value) for key, value in raw.items()}
    beside = {key: _unread(key, value) for key, value in values.items() if _is_typed(key, value)}
    settings = None
    try:
        settings = Settings(**{key: value for key, value in values.items() if key not in beside})
    except ValidationError as error:
        beside |= {key_of(one): _fault(one) for one in error.errors()}
    if not beside:
        return FormReading(values, settings, {}, {}, settings)
    wrong = {key: _named(key, beside[key]) for key in (*values, "") if key in beside}
    return FormReading(values, None, wrong, beside, settings or _usable(values, beside))


def _is_typed(key: str, value: Any) -> bool:
    """Whether what was typed for a number is none. Pydantic would read 16 in ``1_6``, and 2 in ``2.000``."""
    return isinstance(value, str) and SPECS[key].kind in ("integer", "number")


def _unread(key: str, typed: str) -> str:
    try:
        number(typed, whole=SPECS[key].kind == "integer")
    except ValueError as unread:
        return f"must be {allowed(key)}. {unread}"
    raise AssertionError(f"{typed!r} is a number")


def _usable(values: dict[str, Any], wrong: dict[str, str]) -> Settings | None:
    try:
        return Settings(**{key: value for key, value in values.items() if key not in wrong})
    except ValidationError:
        return None


def _fault(error: Any) -> str:
    """What is wrong with a setting: a sentence without its subject, or with another one."""
    spec, value = SPECS.get(key_of(error)), error["input"]
    if spec is None:
        return error["msg"].removeprefix("Value error, ") + "."
    if value is None:
        return "is empty."
    if error["type"] in ("text", "value_error"):
        return error["msg"].removeprefix("Value error, ") + "."
    return f"must be {allowed(spec.key)}; it is {words.value(value)}."


def name_of(key: str) -> str:
    """What a setting is called, with its group where it stands in one.

    >>> name_of("steps"), name_of("batch")
    ('Steps', 'Optimizer › Batch size')
    """
    spec = SPECS[key]
    return spec.label if spec.level in (Level.JOB, Level.BASIC) else f"{spec.group.value} › {spec.label}"


def _named(key: str, what: str) -> str:
    if key not in SPECS:
        return what
    return f"{name_of(key)} {what}" if what.startswith(("is ", "must ")) else f"{name_of(key)}: {what}"
