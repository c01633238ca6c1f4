"""Finds and removes what a caption says about its picture's style or medium, by the words in ``style_words.toml``.

A tag counts as a whole: "ink" is about the style and "ink bottle" is not. In sentences, openings count ("a drawing of")
and closing phrases ("in the style of …").
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from lora_studio.curation import caption_parts

_BEFORE_A_STOP = re.compile(r"[\s,]+([.;])(?=\s|$)")
_SPACES = re.compile(r"[\s_]+")


class _Words(NamedTuple):
    endings: tuple[str, ...]
    tags: frozenset[str]
    opening: re.Pattern[str]
    closing: re.Pattern[str]


def found(caption: str, keep: Iterable[str] = ()) -> list[str]:
    """What a caption says about the style: whole tags, openings and closing phrases, as they are written, each once.
    What is in ``keep`` does not count.
    """
    known = _keys(keep)
    return list(dict.fromkeys(piece for piece in _pieces(caption) if _key(piece) not in known))


def without(line: str, keep: Iterable[str] = ()) -> str:
    """A line of a caption without what it says about the style."""
    known = _keys(keep)
    left = caption_parts.changed(line, lambda parts: [left for part in parts if (left := _without(part, known))])
    return line if left == line else _BEFORE_A_STOP.sub(r"\1", left)


def is_style(tag: str) -> bool:
    """Whether a whole tag is about the style."""
    key, words = _key(tag), _words()
    return key in words.tags or key.endswith(words.endings)


@lru_cache(maxsize=16384)
def _pieces(caption: str) -> Sequence[str]:
    lines = caption.split("\n")
    return tuple(piece for line in lines for part in caption_parts.split(line) for piece in _of_part(part))


@lru_cache(maxsize=65536)
def _of_part(part: str) -> tuple[str, ...]:
    if is_style(part):
        return (part,)
    words = _words()
    found = [words.opening.match(part), *words.closing.finditer(part)]
    return tuple(one.group().strip() for one in found if one)


@lru_cache(maxsize=65536)
def _without(part: str, keep: frozenset[str]) -> str:
    if is_style(part):
        return part if _key(part) in keep else ""
    words = _words()
    opening = words.opening.match(part)
    if opening and _key(opening.group()) not in keep:
        rest = part[opening.end() :]
        part = rest[:1].upper() + rest[1:] if part[:1].isupper() else rest
    left = words.closing.sub(lambda one: one.group() if _key(one.group()) in keep else "", part)
    return left.strip()


def _key(text: str) -> str:
    """A text in the one spelling by which words are compared: small letters, spaces for underscores, no backslashes."""
    return _SPACES.sub(" ", text.replace("\\", "")).strip(" .").casefold()


def _keys(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(map(_key, texts))


@cache
def _words() -> _Words:
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    adjectives, media = _either(table["adjectives"]), _either(table["media"])
    opening = (
        r"(?:(?:the|this) (?:image|picture|artwork) (?:is|shows|depicts|features) |there is |this is |it is )?"
        rf"(?:an?|the|this|two|some) (?:(?:{adjectives})[ ,]+(?:and )?)*(?:{media})(?:ing)?s? "
        r"(?:of|depicting|showing|featuring|with|that shows|that depicts) "
    )
    closing = rf"(?<!\w)(?:{_either(table['closings'])})(?!\w)[^,.;]*"
    return _Words(
        tuple(table["endings"]),
        _keys(table["tags"]),
        re.compile(opening, re.IGNORECASE),
        re.compile(closing, re.IGNORECASE),
    )


def _either(phrases: Iterable[str]) -> str:
    """A pattern for any of the phrases; ``*`` in one is one to four words."""
    longest_first = sorted(phrases, key=lambda phrase: -len(phrase))
    return "|".join(re.escape(phrase).replace(r"\*", r"(?:[\w'-]+ ){0,3}[\w'-]+") for phrase in longest_first)
