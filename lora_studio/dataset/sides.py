"""Left and right in the captions of mirrored pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lora_studio.config.slices import AugmentationSettings

_SIDES = re.compile(
    r"(?<![^\W_])(?<!all )(left|right)(?=(?:most|wards?|hand|handed|side)?(?![^\W_]))"
    r"(?! (?:now|away|angles?|behind)\b)",
    re.IGNORECASE,
)
"""A word for a side of the picture, also in ``left-handed`` and ``facing_left``; not in "right now"."""
_OTHER = {"left": "right", "right": "left"}


def mirrored(captions: Sequence[str], settings: AugmentationSettings) -> list[str]:
    """The captions of the mirrored picture, one for each of ``captions``; empty where it is not mirrored."""
    if not settings.flip or (settings.mirror_captions == "unmirrored" and any(map(speaks_of_sides, captions))):
        return []
    return [exchanged(text) for text in captions] if settings.mirror_captions == "exchanged" else list(captions)


def speaks_of_sides(text: str) -> bool:
    """Whether ``text`` has a word for the left or right side."""
    return _SIDES.search(text) is not None


def exchanged(text: str) -> str:
    """``text`` with left for right, and right for left, in the same case."""
    return _SIDES.sub(lambda found: _in_case_of(found[0], _OTHER[found[0].lower()]), text)


def _in_case_of(like: str, word: str) -> str:
    return word.upper() if like.isupper() else word.capitalize() if like[0].isupper() else word
