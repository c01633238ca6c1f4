"""The warnings of a run, folded by their kind: one line each, and what they say in full when it is opened."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lora_studio.events import Warned
from lora_studio.language import english, ntr, tr
from lora_studio.ui import words

_AT_ONCE, _LISTED = 3, 100
"""Kinds that are seen before the rest is opened, and warnings of one kind that are listed."""
_VARYING = re.compile(r"\"[^\"]*\"|'[^']*'|\S+\.\w{2,12}\b|\d[\d.,]*")
"""What differs between warnings of one kind: names and numbers."""


def by_kind(warnings: Sequence[Warned]) -> list[list[Warned]]:
    """The warnings, each once, those of one kind together, in the order in which the kinds came."""
    kinds: dict[str, dict[tuple[str, str], Warned]] = {}
    for one in warnings:
        kinds.setdefault(_VARYING.sub("#", english(one.what)), {})[english(one.what), one.where] = one
    return [list(found.values()) for found in kinds.values()]


def html(warnings: Sequence[Warned]) -> str:
    """One line for each kind, the latest first; empty without warnings."""
    kinds = by_kind(warnings)[::-1]
    if not kinds:
        return ""
    lines = [_line(one) for one in kinds]
    rest = lines[_AT_ONCE:]
    more = (
        f'<details data-kind="more"><summary>{_more_kinds(len(rest))}</summary>{"".join(rest)}</details>'
        if rest
        else ""
    )
    return f'<div class="warnings">{"".join(lines[:_AT_ONCE])}{more}</div>'


def _more_kinds(count: int) -> str:
    return ntr(count, "{count:,} more kind of warnings", "{count:,} more kinds of warnings")


def _line(found: Sequence[Warned]) -> str:
    latest = found[-1]
    of_kind = tr("{count:,} of this kind", count=len(found))
    count = f'<span class="count">{of_kind}</span>' if len(found) > 1 else ""
    listed = "".join(f"<li>{_full(one)}</li>" for one in found[-_LISTED:])
    left = len(found) - _LISTED
    more = f"<li>{_earlier(left)}</li>" if left > 0 else ""
    kind = words.text(_VARYING.sub("#", english(latest.what)))
    return (
        f'<details data-kind="{kind}"><summary><b>{words.text(latest.what)}</b>{count}</summary>'
        f"<ul>{listed}{more}</ul></details>"
    )


def _earlier(count: int) -> str:
    return ntr(
        count,
        "And {count:,} earlier one, which the run's log has.",
        "And {count:,} earlier ones, which the run's log has.",
    )


def _full(one: Warned) -> str:
    place = f" <code>{words.text(one.where)}</code>" if one.where and one.where not in one.what else ""
    return f"{words.text(one.what)}{place} {words.text(one.do)}"
