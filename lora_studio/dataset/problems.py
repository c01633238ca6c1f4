"""What is wrong with a dataset, as data: the page shows it, the command line prints it, and training starts or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["blocking", "left out", "warning"]

_NAMED = 5


@dataclass(frozen=True)
class Problem:
    """Something that the user should know before training: what, in which file, and what to do.

    "blocking" prevents training, "left out" excludes the file, "warning" excludes nothing. ``file`` is relative to the
    folder, "" for the folder itself; ``files`` has all names if the problem concerns several.
    """

    severity: Severity
    file: str
    what: str
    do: str
    files: tuple[str, ...] = ()


def grouped(
    severity: Severity, names: Iterable[str], one: str, many: str, do: str, notes: Mapping[str, str] | None = None
) -> list[Problem]:
    """One problem for all ``names``; none if there is no name.

    ``one`` and ``many`` follow the count: "3 pictures have no caption: a.png, b.png, c.png." ``notes`` on some names
    follow them in brackets.
    """
    names, notes = tuple(names), notes or {}
    if not names:
        return []
    shown = ", ".join(f"{name} ({notes[name]})" if name in notes else name for name in names[:_NAMED]) + (
        f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    )
    return [Problem(severity, names[0], f"{len(names)} {one if len(names) == 1 else many}: {shown}.", do, names)]
