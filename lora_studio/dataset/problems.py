"""What is wrong with a dataset, as data: the page shows it, the command line prints it, and training starts or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lora_studio.language import few, ntr, tr

Severity = Literal["blocking", "left out", "warning"]
Kind = Literal[
    # of the folder
    "no folder",
    "unread folder",
    "no pictures",
    "all left out",
    "class pictures",
    "too many",
    "repeats",
    "link",
    "name",
    "archive",
    "scan",
    # of what was chosen
    "preparation",
    "left out",
    "no weight",
    "small crop",
    "missing",
    # of pictures
    "unreadable",
    "not taken",
    "identical",
    "alike",
    "cropped",
    "small",
    "frames",
    "exif",
    "profile",
    "cmyk",
    "alpha",
    "key",
    # of captions
    "no caption",
    "folder caption",
    "two captions",
    "orphan caption",
    "unread captions",
    "unreadable caption",
    "caption encoding",
    "not a caption",
    "table",
    "long caption",
    "caption lines",
    "wildcards",
    "braces",
    "protected tag",
    "sides",
    # of masks
    "several masks",
    "black mask",
    "mask shape",
    "orphan mask",
    "unreadable mask",
    "conditioning",
]
"""What a problem is about, the same in every version: docs/datasets.md says what each means."""

_NAMED = 5


@dataclass(frozen=True)
class Problem:
    """Something that the user should know before training: what, in which file, and what to do.

    "blocking" prevents training, "left out" excludes the file, "warning" excludes nothing. ``file`` is relative to the
    folder, "" for the folder itself; ``files`` has all names if the problem was ``grouped``: those of one group, where
    it is of pictures that are identical or alike.
    """

    severity: Severity
    kind: Kind
    file: str
    what: str
    do: str
    files: tuple[str, ...] = ()


def grouped(
    severity: Severity,
    kind: Kind,
    names: Iterable[str],
    one: str,
    many: str,
    do: str,
    notes: Mapping[str, str] | None = None,
    **parts: Any,
) -> list[Problem]:
    """One problem for all ``names``; none if there is no name.

    ``one`` and ``many`` follow the count: "3 pictures have no caption: a.png, b.png, c.png." They are literals, for the
    catalogues, and formats of ``parts``. ``notes`` on some names follow them in brackets.
    """
    names, notes = tuple(names), notes or {}
    if not names:
        return []
    noted = (tr("{name} ({note})", name=name, note=notes[name]) if name in notes else name for name in names)
    said = few(noted, _NAMED)
    what = ntr(len(names), f"{{count:,}} {one}: {{names}}.", f"{{count:,}} {many}: {{names}}.", names=said, **parts)
    return [Problem(severity, kind, names[0], what, do, names)]
