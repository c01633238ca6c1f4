"""Words that a text encoder has learned vectors for (textual inversion; Gal et al. 2022, *An Image is Worth One Word*).

They are found by their tokens, as A1111 finds them (``EmbeddingDatabase.find_embedding_at_position``): upper and lower
case do not matter, and words around them do not either. ComfyUI writes ``embedding:`` before such a word, which is read
as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class LearnedWord(NamedTuple):
    """A word as one text encoder reads it."""

    word: str
    tokens: tuple[int, ...]
    """What the vocabulary makes of it, without learned vectors."""
    ids: tuple[int, ...]
    """Its vectors: numbers beyond the vocabulary, one for each."""


class TokenGroup(NamedTuple):
    """Tokens that stay together: a learned word's, or a single one."""

    ids: tuple[int, ...]
    first: int
    """The first of the text's own tokens that it stands for."""
    last: int


def grouped(tokens: Sequence[int], words: Sequence[LearnedWord]) -> Iterator[TokenGroup]:
    """The tokens of a text with those of ``words`` replaced by their ids. Where several words fit, the longest does.

    >>> [group.ids for group in grouped([5, 7, 8], [LearnedWord("ana", (7, 8), (90, 91, 92))])]
    [(5,), (90, 91, 92)]
    """
    longest_first = sorted(words, key=lambda word: len(word.tokens), reverse=True)
    place = 0
    while place < len(tokens):
        found = next(
            (one for one in longest_first if tuple(tokens[place : place + len(one.tokens)]) == one.tokens), None
        )
        ids, count = (found.ids, len(found.tokens)) if found else ((tokens[place],), 1)
        yield TokenGroup(tuple(ids), place, place + count - 1)
        place += count


def named(text: str, words: Iterable[str]) -> list[str]:
    """Those of ``words`` that ``text`` names as whole words, with or without ``embedding:`` before them."""
    return [word for word in words if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)]


def without_prefix(text: str, words: Iterable[str]) -> str:
    """``text`` without ComfyUI's ``embedding:`` before ``words``, and without a file's ending behind them.

    >>> without_prefix("a cat, embedding:ana.safetensors, embedding:other", ["ana"])
    'a cat, ana, embedding:other'
    """
    if "embedding:" not in text.lower():
        return text
    known = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    if not known:
        return text
    return re.sub(rf"\bembedding:({known})(?:\.safetensors|\.pt|\.bin)?(?!\w)", r"\1", text, flags=re.IGNORECASE)
