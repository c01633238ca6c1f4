"""Words and phrases in captions: whether one is there, and captions without some of their words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

_GAP = re.compile(r"([\s,]+)")
_LEFT_OVER = re.compile(r"\s*,\s*(?=[,.])|\s+([,.])")
"""A comma before nothing, and a space before a comma or full stop."""


def names(text: str, phrase: str) -> bool:
    """Whether the words of ``phrase`` occur in ``text`` as whole words, in upper or lower case."""
    return _pattern(phrase).search(text.casefold()) is not None


def replaced(text: str, phrase: str, by: str) -> str:
    """``text`` with ``by`` for ``phrase``, wherever it occurs as whole words; without it, and the comma that is left
    over, where ``by`` is empty.
    """
    end, parts = 0, []
    for first, last in _spans(text, phrase) if phrase.strip() else ():
        parts += [text[end:first], by]
        end = last
    if not parts:
        return text
    joined = "".join([*parts, text[end:]])
    return joined if by else _LEFT_OVER.sub(r"\1", " ".join(joined.split())).strip(" ,")


def without_words(text: str, kept: Iterable[str], left_out: Callable[[int], bool]) -> str:
    """``text`` without the words for whose place, 0 for the first, ``left_out`` is true; as it is where there are
    none. What stands between commas goes with its last word.

    Args:
        kept: phrases whose words stay wherever ``text`` has them as a whole.
    """
    pieces = _GAP.split(text)  # words, and between them gaps
    stays = _within(pieces, kept)
    gone = [
        bool(word) and not stay and left_out(place)
        for place, (word, stay) in enumerate(zip(pieces[::2], stays, strict=True))
    ]
    if not any(gone):
        return text
    pieces[::2] = ["" if missing else word for word, missing in zip(pieces[::2], gone, strict=True)]
    clauses = (" ".join(clause.split()) for clause in "".join(pieces).split(","))
    return ", ".join(filter(None, clauses))


def _within(pieces: list[str], phrases: Iterable[str]) -> list[bool]:
    """Whether each word of ``pieces`` is part of one of ``phrases``."""
    text = "".join(pieces)
    spans = [span for phrase in phrases if phrase.strip() for span in _spans(text, phrase)]
    within, start = [], 0
    for word, gap in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
        end = start + len(word)
        within.append(any(first < end and start < last for first, last in spans))
        start = end + len(gap)
    return within


def _spans(text: str, phrase: str) -> list[tuple[int, int]]:
    """Where ``phrase`` begins and ends in ``text``, in upper or lower case, which may be of other lengths."""
    folded = [letter.casefold() for letter in text]
    places = [place for place, letters in enumerate(folded) for _ in letters]
    return [
        (places[found.start()], places[found.end() - 1] + 1) for found in _pattern(phrase).finditer("".join(folded))
    ]


@lru_cache(maxsize=256)
def _pattern(phrase: str) -> re.Pattern[str]:
    words = r"\s+".join(map(re.escape, phrase.casefold().split()))
    return re.compile(rf"(?<!\w){words}(?!\w)")
