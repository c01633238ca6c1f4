"""What training sees of a caption: its variants."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from lora_studio.config.slices import DatasetSettings

VARIANTS = 8
"""Highest number of shuffled variants of one caption that are encoded."""
_VARIANTS_IN_ALL = 2000


def with_trigger(caption: str, trigger: str) -> str:
    """The caption with the trigger word in front, unless it begins with it."""
    return variants(caption, trigger, DatasetSettings())[0]


def variants(caption: str, trigger: str, settings: DatasetSettings, seed: int = 0, limit: int = VARIANTS) -> list[str]:
    """The texts that training sees for one caption: at least one, at most ``limit``, no duplicates; the first has the
    tags as written.

    The trigger word comes first, unless the caption begins with it. With ``shuffle_tags`` the comma-separated tags
    after the first ``keep_tags`` are shuffled by ``seed``; the trigger word stays in place.
    """
    tags = [tag for tag in map(str.strip, caption.split(",")) if tag]
    trigger, text = trigger.strip(), caption.strip()
    led = bool(trigger) and bool(tags) and f"{tags[0]} ".casefold().startswith(f"{trigger} ".casefold())
    if trigger and not led:
        text = f"{trigger}, {text}" if text else trigger
        tags = [trigger, *(tag for tag in tags if tag.casefold() != trigger.casefold())]
    if not settings.shuffle_tags:
        return [text]
    kept = settings.keep_tags + 1 if trigger and not led else max(settings.keep_tags, int(led))
    head, moved = tags[:kept], tags[kept:]
    found: dict[str, None] = {}
    for round_ in range(4 * limit):  # short captions repeat an order: a few more tries
        found[", ".join(head + _shuffled(moved, seed, round_))] = None
        if len(found) == limit:
            break
    return list(found)


def _shuffled(tags: list[str], seed: int, round_: int) -> list[str]:
    """``tags`` in an order that depends only on the arguments, on every machine; round 0 keeps their order."""
    if not round_:
        return tags
    ranks = [
        hashlib.sha256(f"{seed} {round_} {place} {tag}".encode("utf-8", "replace")).digest()
        for place, tag in enumerate(tags)
    ]
    return [tag for _, tag in sorted(zip(ranks, tags, strict=True))]


def all_variants(captions: Sequence[str], trigger: str, settings: DatasetSettings, seed: int = 0) -> list[list[str]]:
    """``variants`` of every caption; fewer of each if there are many captions, so that encoding and storing them stays
    fast.
    """
    limit = max(2, min(VARIANTS, _VARIANTS_IN_ALL // max(1, len(captions))))
    return [variants(caption, trigger, settings, seed, limit) for caption in captions]
