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
from lora_studio.config.specs import SPECS, Spec, allowed, said
from lora_studio.language import english, tr
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
    found = {key: _unread(key, value) for key, value in values.items() if _is_typed(key, value)}
    settings = None
    try:
        settings = Settings(**{key: value for key, value in values.items() if key not in found})
    except ValidationError as error:
        found |= {key_of(one): _fault(one) for one in error.errors()}
    if not found:
        return FormReading(values, settings, {}, {}, settings)
    wrong = {key: found[key].named for key in (*values, "") if key in found}
    beside = {key: fault.beside for key, fault in found.items()}
    return FormReading(values, None, wrong, beside, settings or _usable(values, beside))


class Fault(NamedTuple):
    """What is wrong with a setting, as a sentence that names it, and beside its field, which names it already."""

    named: str
    beside: str


def _is_typed(key: str, value: Any) -> bool:
    """Whether what was typed for a number is none. Pydantic would read 16 in ``1_6``, and 2 in ``2.000``."""
    return isinstance(value, str) and SPECS[key].kind in ("integer", "number")


def _unread(key: str, typed: str) -> Fault:
    try:
        number(typed, whole=SPECS[key].kind == "integer")
    except ValueError as unread:
        why = {"allowed": allowed(key), "unread": unread.args[0]}
        return Fault(
            tr("{label} must be {allowed}. {unread}", label=name_of(key), **why),
            tr("must be {allowed}. {unread}", **why),
        )
    raise AssertionError(f"{typed!r} is a number")


def _usable(values: dict[str, Any], wrong: dict[str, str]) -> Settings | None:
    try:
        return Settings(**{key: value for key, value in values.items() if key not in wrong})
    except ValidationError:
        return None


def _fault(error: Any) -> Fault:
    key, value = key_of(error), error["input"]
    if key not in SPECS:
        between = tr("{fault}.", fault=said(error) or error["msg"])
        return Fault(between, between)
    label = name_of(key)
    if value is None:
        return Fault(tr("{label} is empty.", label=label), tr("is empty."))
    if own := said(error):
        if english(own).startswith("must "):  # it goes on from the setting's name
            return Fault(tr("{fault}.", fault=f"{label} {own}"), tr("{fault}.", fault=own))
        return Fault(tr("{label}: {fault}.", label=label, fault=own), tr("{fault}.", fault=own))
    told = {"allowed": allowed(key), "value": words.value(value)}
    return Fault(
        tr("{label} must be {allowed}; it is {value}.", label=label, **told),
        tr("must be {allowed}; it is {value}.", **told),
    )


def name_of(key: str) -> str:
    """What a setting is called, with its group where it stands in one.

    >>> name_of("steps"), name_of("batch")
    ('Steps', 'Optimizer › Batch size')
    """
    spec = SPECS[key]
    return str(spec.label) if spec.level in (Level.JOB, Level.BASIC) else f"{spec.group.heading} › {spec.label}"
