"""Wildcards in a caption: ``{a|b|c}`` is one of its options, as sd-scripts reads it with ``enable_wildcard``.

Options may be empty. Doubled braces are literal ones. Wildcards do not nest. Braces around a text without ``|``, and
braces without a partner, are plain text (sd-scripts removes the former). All choices depend only on their arguments, on
every machine.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Sequence

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
_EMPTY_TAGS = re.compile(r"(?: ?,){2,} ?")
"""Commas with nothing between them, where an empty option was chosen."""


class Template:
    """A caption with wildcards: fixed text, and the options of each wildcard, in turn.

    Args:
        wildcards: off reads all braces as text.
    """

    def __init__(self, text: str, wildcards: bool = True):
        self.text = text
        self._fixed: list[str] = []
        self._options: list[list[str]] = []
        literal, end = "", 0
        for found in _BRACES.finditer(text) if wildcards else ():
            literal, end = literal + text[end : found.start()], found.end()
            if "|" in (found[1] or ""):
                self._fixed.append(literal)
                self._options.append(found[1].split("|"))
                literal = ""
            else:
                literal += found[0][:1] if found[1] is None else found[0]
        self._fixed.append(literal + text[end:])

    @property
    def count(self) -> int:
        """How many texts there are: 1 without wildcards."""
        return math.prod(map(len, self._options))

    @property
    def broken(self) -> bool:
        """Whether it holds braces with ``|`` that are no wildcard, since they nest or have no partner."""
        rest = _BRACES.sub("", self.text)
        return "|" in rest.replace("|||", "") and ("{" in rest or "}" in rest)

    def every(self) -> Iterator[str]:
        """Each of the texts; the first has the first option of every wildcard."""
        return map(self._filled, itertools.product(*self._options))

    def covering(self) -> Iterator[str]:
        """A few of the texts, in which each option of each wildcard occurs."""
        most = max(map(len, self._options), default=1)
        return (self._filled([options[i % len(options)] for options in self._options]) for i in range(most))

    def draw(self, seed: int, round_: int) -> str:
        """The text of a round. Over the rounds each option of a wildcard is equally frequent, independent of the
        others.
        """
        chosen = []
        for place, options in enumerate(self._options):
            pass_, index = divmod(round_, len(options))
            chosen.append(shuffled(options, seed, pass_, "wildcard", place, self.text)[index])
        return self._filled(chosen)

    def _filled(self, chosen: Sequence[str]) -> str:
        parts = itertools.chain.from_iterable(itertools.zip_longest(self._fixed, chosen, fillvalue=""))
        text = "".join(parts)
        return _EMPTY_TAGS.sub(", ", " ".join(text.split())).strip(" ,") if self._options else text


def shuffled(items: Sequence[str], *key: object) -> list[str]:
    """``items`` in an order that depends only on them and ``key``."""
    start = " ".join(map(str, key))
    ranks = [
        hashlib.sha256(f"{start} {place} {item}".encode("utf-8", "replace")).digest()
        for place, item in enumerate(items)
    ]
    return [item for _, item in sorted(zip(ranks, items, strict=True))]


def chance(*key: object) -> float:
    """A number in [0, 1) that depends only on ``key``."""
    digest = hashlib.sha256(" ".join(map(str, key)).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
