"""A line of a caption as parts between commas: tags, and the parts of sentences.

Commas within a wildcard, ``{red, blue|gold}``, separate nothing, and ``|||`` separates sections that keep their parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lora_studio.dataset.caption_variants import KEEP

Parts = list[str]

_PIECE = re.compile(r"(?:\{[^{}|]*\|[^{}]*\}|[^,])+")

_GAPS = re.compile(r"\s*,(?:\s*,)+")


def split(line: str) -> Parts:
    """The parts of a line in order, without empty ones."""
    return [part for section in line.split(KEEP) for part in _split(section)]


def key(part: str) -> str:
    """A part as parts are compared: upper and lower case do not matter, nor does a full stop."""
    return part.strip(" .").casefold()


def changed(line: str, change: Callable[[Parts], Parts]) -> str:
    """A line with other parts in each of its sections; the same line where ``change`` changes none."""
    sections = [_split(section) for section in line.split(KEEP)]
    new = [change(parts) for parts in sections]
    return line if new == sections else joined(new)


def closed(line: str) -> str:
    """A line without the gaps of parts that became empty: ``a, , b`` is ``a, b``."""
    return _GAPS.sub(",", line).strip(" ,")


def joined(sections: list[Parts]) -> str:
    """The line of these sections."""
    return f" {KEEP} ".join(", ".join(parts) for parts in sections).strip() if any(sections) else ""


def _split(section: str) -> Parts:
    pieces = section.split(",") if "{" not in section else _PIECE.findall(section)
    return [part for piece in pieces if (part := piece.strip())]
