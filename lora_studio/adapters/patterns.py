"""A peft config's ``alpha_pattern`` and ``rank_pattern``: values by regular expressions for the ends of modules' paths.

A config may hold one entry for each of a thousand layers, so plain names are looked up instead of matched one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_PLAIN = re.compile(r"[\w.]+")
_MOST = 200
"""Expressions that are no plain names. A config has a few of them, if any."""


class Patterns:
    """A table of patterns. As in peft, the first key that matches the end of a path, from a dot on, gives its value.

    A plain name's dots are taken as dots, although the expression would match any character there.

    Raises:
        AttributeError, TypeError: it is no table of texts.
        ValueError: a key from this file of unknown origin could take forever to match, or there are too many.
        re.error: a key is no regular expression.
    """

    def __init__(self, table: Mapping[str, Any]):
        self._values = list(table.values())
        self._plain: dict[str, int] = {}
        self._expressions: list[tuple[int, re.Pattern[str]]] = []
        for order, key in enumerate(table):
            if _PLAIN.fullmatch(key):
                self._plain[key] = order
            elif _quick(key) and len(self._expressions) < _MOST:
                self._expressions.append((order, re.compile(rf"(?:.*\.)?(?:{key})")))
            else:
                raise ValueError(key)

    def get(self, path: str, default: Any) -> Any:
        """The value for the module at ``path``, which is compared both with and without ``text_model.``, since
        transformers 5 writes it without.
        """
        paths = {path, path.removeprefix("text_model.")}
        found = [self._plain[end] for one in paths for end in _ends(one) if end in self._plain]
        found += [order for order, expression in self._expressions if any(map(expression.fullmatch, paths))]
        return self._values[min(found)] if found else default


def _ends(path: str) -> Iterator[str]:
    """The path itself, and what is after each of its dots."""
    while path:
        yield path
        path = path.partition(".")[2]


def _quick(pattern: str) -> bool:
    """Whether matching is bounded: no repeated group, lookaround or back reference, and few ways to divide a path among
    the repeats and alternatives.
    """
    plain = pattern.replace("(?:", "(")
    repeats, groups = sum(map(plain.count, "*+?{")), plain.count("(")
    ways = 100**repeats * (1 + plain.count("|")) ** max(1, groups)
    return not re.search(r"\)[*+?{]|\(\?|\\[1-9]", plain) and ways <= 10**7
