"""What training sees of a caption: its variants, a finite number, so that each is encoded once.

A caption may have several lines, wildcards (``wildcards``), and tags that are shuffled or left out. As in sd-scripts
(``keep_tokens_separator``), tags before ``|||`` stay in place, and so do those after a second one. In order: prefix and
suffix, wildcards, dropped words, trigger word, dropped tags, shuffled tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, cycle, islice
from typing import NamedTuple

from lora_studio.config.slices import DatasetSettings
from lora_studio.dataset.phrases import names, without_words
from lora_studio.dataset.wildcards import Template, chance, shuffled

KEEP = "|||"
"""Separates tags that stay in place from those that are shuffled and left out. Never seen by a text encoder."""
VARIANTS = 8
"""Highest number of variants of one line of a caption that are encoded."""
_VARIANTS_IN_ALL = 2000


def with_trigger(caption: str, trigger: str) -> str:
    """The caption with the trigger word in front, unless it has it already."""
    return variants(caption, trigger, DatasetSettings(wildcards=False))[0]


def variants(caption: str, trigger: str, settings: DatasetSettings, seed: int = 0, limit: int = VARIANTS) -> list[str]:
    """The texts that training sees for one caption, each as often as it should be drawn: at least one. The first is the
    first line with its tags as written.

    Every line of a caption counts the same, and has at most ``limit`` variants between them, but at least 2 each where
    something varies. Tags are shuffled, left out and chosen by ``seed``, and so are words left out.

    The trigger word comes first. A tag that equals it is moved there; where other words of the caption contain it, it
    stays where it is, unless tags are shuffled: then its tag is moved. Upper and lower case do not matter.
    """
    lines = caption.split("\n") if settings.caption_lines == "variants" else [caption.replace("\n", " ")]
    most = limit if len(lines) == 1 else max(2, limit // len(lines))
    found = [_of_line(_framed(line, settings), trigger.strip(), settings, seed, most) for line in lines]
    longest = max(map(len, found))
    return [text for texts in found for text in islice(cycle(texts), longest)]


def all_variants(
    captions: Sequence[str], trigger: str | Sequence[str], settings: DatasetSettings, seed: int = 0
) -> list[list[str]]:
    """``variants`` of every caption; fewer of each if there are many captions, so that encoding and storing them stays
    fast.

    Args:
        trigger: the trigger word, or one for each caption.
    """
    limit = max(2, min(VARIANTS, _VARIANTS_IN_ALL // max(1, len(captions))))
    triggers = [trigger] * len(captions) if isinstance(trigger, str) else trigger
    return [variants(text, word, settings, seed, limit) for text, word in zip(captions, triggers, strict=True)]


def _framed(line: str, settings: DatasetSettings) -> str:
    """A line between prefix and suffix. They are joined by spaces, so that commas are written where they are wanted."""
    prefix, suffix = settings.caption_prefix.strip(), settings.caption_suffix.strip()
    text = " ".join(part for part in (prefix, line.strip(), suffix) if part)
    return text.replace(" ,", ",").strip(" ,") if prefix or suffix else text


def _of_line(line: str, trigger: str, settings: DatasetSettings, seed: int, limit: int) -> list[str]:
    template = Template(line, settings.wildcards)
    drops = settings.tag_dropout or settings.word_dropout
    if not settings.shuffle_tags and not drops and template.count <= limit:
        return [_unvaried(text, trigger) for text in template.every()]
    if settings.shuffle_tags and not drops and template.count == 1:
        return _orders(_tags(template.draw(seed, 0), trigger, settings), seed, limit)
    texts = [template.draw(seed, round_) for round_ in range(limit)]
    found = [_round(text, line, trigger, settings, seed, round_, limit) for round_, text in enumerate(texts)]
    return found if len(set(found)) > 1 else found[:1]


def _unvaried(text: str, trigger: str) -> str:
    """``text`` as it is, with the trigger word."""
    if KEEP in text:
        text = ", ".join(part for part in (section.strip(" ,") for section in text.split(KEEP)) if part)
    tags = _split(text)
    if not trigger or _led(tags, trigger):
        return text
    others = _without_tags(tags, _split(trigger))
    if len(others) < len(tags):
        return ", ".join([trigger, *others])
    return text if names(text, trigger) else f"{trigger}, {text}" if text else trigger


class _Tags(NamedTuple):
    """The tags of a text, in order."""

    head: list[str]
    """Stay in front."""
    free: list[str]
    """May be shuffled and left out."""
    tail: list[str]
    """Stay at the end."""


def _tags(text: str, trigger: str, settings: DatasetSettings) -> _Tags:
    """``text`` as tags, with the trigger word's in front."""
    sections = [_split(section.replace(KEEP, ",")) for section in text.split(KEEP, 2)]
    tags = list(chain.from_iterable(sections))
    front: list[str] = []
    led = bool(trigger) and _led(tags, trigger)
    if trigger and not led:
        bearers = [tag for tag in tags if names(tag, trigger)] if names(text, trigger) else []
        alone = len(_without_tags(bearers, [trigger])) < len(bearers)
        front = bearers[:1] if bearers and not alone else [trigger]
        moved = front if bearers and not alone else _split(trigger)
        sections = [_without_tags(section, moved) for section in sections]
    first, *others = sections
    own = len(_split(trigger)) if led else 0
    if others:
        behind = max(0, own - len(first))  # of the trigger's tags, those that are written after the first separator
        free, *tail = others
        return _Tags(front + first + free[:behind], free[behind:], list(chain.from_iterable(tail)))
    kept = max(settings.keep_tags, own)
    return _Tags(front + first[:kept], first[kept:], [])


def _orders(tags: _Tags, seed: int, limit: int) -> list[str]:
    """Distinct orders of ``tags``; the first is as written."""
    found: dict[str, None] = {}
    for round_ in range(4 * limit):  # short captions repeat an order: a few more tries
        free = shuffled(tags.free, seed, round_) if round_ else tags.free
        found[", ".join(tags.head + free + tags.tail)] = None
        if len(found) == limit:
            break
    return list(found)


def _round(text: str, line: str, trigger: str, settings: DatasetSettings, seed: int, round_: int, rounds: int) -> str:
    """The variant of one round, of ``text``, which is ``line`` with its wildcards chosen."""
    if settings.word_dropout:
        text = _thinned(text, line, trigger, settings, seed, round_, rounds)
    if not settings.shuffle_tags and not settings.tag_dropout:
        return _unvaried(text, trigger)
    head, free, tail = _tags(text, trigger, settings)
    protected = {tag.strip().casefold() for tag in settings.protected_tags}
    free = [
        tag
        for place, tag in enumerate(free)
        if tag.casefold() in protected or round_ not in _without(settings.tag_dropout, rounds, seed, line, place)
    ]
    if settings.shuffle_tags and round_:
        free = shuffled(free, seed, round_)
    return ", ".join(head + free + tail)


def _thinned(text: str, line: str, trigger: str, settings: DatasetSettings, seed: int, round_: int, rounds: int) -> str:
    """``text`` without the words that are left out in one round; what ``KEEP`` keeps in place stays."""
    sections = text.split(KEEP, 2)
    place = min(1, len(sections) - 1)
    sections[place] = without_words(
        sections[place],
        [trigger, *_split(trigger), *settings.protected_tags],
        lambda word: round_ in _without(settings.word_dropout, rounds, seed, line, f"word {word}"),
    )
    return KEEP.join(sections)


@lru_cache(maxsize=4096)
def _without(share: float, rounds: int, *key: object) -> frozenset[int]:
    """The rounds in which a tag or word is left out: ``share`` of all, on average. Round 0 comes last, so that the
    caption as written is seen.
    """
    times = int(share * rounds + chance("without", *key))
    later = shuffled([str(round_) for round_ in range(1, rounds)], "without", *key) if times else []
    return frozenset(map(int, [*later, "0"][:times]))


def _split(text: str) -> list[str]:
    return [tag for tag in map(str.strip, text.split(",")) if tag]


def _without_tags(tags: Sequence[str], others: Sequence[str]) -> list[str]:
    left_out = {tag.casefold() for tag in others}
    return [tag for tag in tags if tag.casefold() not in left_out]


def _led(tags: Sequence[str], trigger: str) -> bool:
    """Whether the first of ``tags`` contains the trigger, or the first ones if it has commas itself."""
    return names(", ".join(tags[: trigger.count(",") + 1]), trigger)
