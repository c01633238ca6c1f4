"""The tags of all captions: how frequent they are, and what an artist should know of them.

Tags are what stands between commas. Upper and lower case are one tag, under its most frequent spelling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from lora_studio.curation import caption_parts, style_words
from lora_studio.curation.edits import Edit, RemoveStyle, RemoveTags
from lora_studio.language import few, ntr, tr

FEWEST = 3
"""Captions below which nothing is said of tags that all of them have."""
_NAMED = 5


class TagCount(NamedTuple):
    """A tag and in how many captions it stands."""

    tag: str
    count: int


class TagRemark(NamedTuple):
    """Something that an artist should know of her captions.

    Attributes:
        kind: "in all" or "style".
        what: what was found.
        do: what to do about it, and why.
        tags: the words concerned, the most frequent first.
        names: the pictures concerned.
        edit: what the advice would change.
    """

    kind: str
    what: str
    do: str
    tags: tuple[TagCount, ...]
    names: tuple[str, ...]
    edit: Edit


def frequencies(captions: Mapping[str, str]) -> list[TagCount]:
    """The tags of captions by picture, the most frequent first. A caption of several lines counts once for each tag."""
    counts, spellings = Counter[str](), Counter[str]()
    for caption in captions.values():
        parts, keys = _read(caption)
        spellings.update(parts)
        counts.update(keys)
    spelling: dict[str, str] = {}
    for part, _ in spellings.most_common():
        spelling.setdefault(caption_parts.key(part), part)
    found = [TagCount(spelling[key], count) for key, count in counts.items() if key]
    return sorted(found, key=lambda one: (-one.count, one.tag.casefold()))


@lru_cache(maxsize=16384)
def _read(caption: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """The tags of a caption as written, and their keys. After an edit most captions are as before."""
    parts = tuple(part for line in caption.split("\n") for part in caption_parts.split(line))
    return parts, frozenset(map(caption_parts.key, parts))


def remarks(
    captions: Mapping[str, str], trigger: str = "", counts: Sequence[TagCount] | None = None
) -> list[TagRemark]:
    """What to know of the captions by picture: tags that stand in all of them, and words about the style. Pictures
    without a caption do not count, nor does the ``trigger`` word.

    Args:
        counts: the captions' ``frequencies``, where they are known.
    """
    written = {name: caption for name, caption in captions.items() if caption}
    counted = frequencies(written) if counts is None else counts
    return [*_in_all(written, trigger, counted), *_about_style(written, trigger)]


def _in_all(captions: Mapping[str, str], trigger: str, counts: Sequence[TagCount]) -> list[TagRemark]:
    own = caption_parts.key(trigger)
    found = [
        one
        for one in counts
        if one.count == len(captions) >= FEWEST
        and caption_parts.key(one.tag) != own
        and not style_words.is_style(one.tag)
    ]
    if not found:
        return []
    what, do = _told_in_all(found, len(captions))
    edit = RemoveTags(tags=tuple(one.tag for one in found))
    return [TagRemark("in all", what, do, tuple(found), tuple(captions), edit)]


def _told_in_all(found: Sequence[TagCount], captions: int) -> tuple[str, str]:
    what = ntr(
        len(found),
        "{tags} stands in all {captions:,} captions.",
        "{tags} stand in all {captions:,} captions.",
        tags=_listed(found),
        captions=captions,
    )
    do = ntr(
        len(found),
        "The style is tied to it: prompts without it get less of the style. Keep it if every prompt will say so, as "
        "with a trigger word. Otherwise remove it: then what it names becomes part of the style and is drawn unasked.",
        "The style is tied to them: prompts without them get less of the style. Keep them if every prompt will say so, "
        "as with a trigger word. Otherwise remove them: then what they name becomes part of the style and is drawn "
        "unasked.",
    )
    return what, do


def _about_style(captions: Mapping[str, str], trigger: str) -> list[TagRemark]:
    keep = (trigger,) if trigger else ()
    pieces = {name: said for name, caption in captions.items() if (said := style_words.found(caption, keep))}
    if not pieces:
        return []
    counts = Counter(piece.casefold() for said in pieces.values() for piece in said)
    found = tuple(TagCount(piece, count) for piece, count in counts.most_common())
    what = ntr(
        len(pieces),
        "{count:,} caption says how the picture is made: {words}.",
        "{count:,} captions say how the picture is made: {words}.",
        words=_listed(found),
    )
    do = tr(
        "Remove that: what captions leave unsaid becomes the style, while what they say is drawn only where the "
        "prompt says it too."
    )
    return [TagRemark("style", what, do, found, tuple(pieces), RemoveStyle(keep=keep))]


def _listed(tags: Sequence[TagCount]) -> str:
    return few([tr("“{tag}”", tag=one.tag) for one in tags], _NAMED)
