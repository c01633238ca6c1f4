"""Left and right where a picture is mirrored."""

import pytest

from lora_studio.config.slices import AugmentationSettings
from lora_studio.dataset.sides import exchanged, mirrored


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat on the left, looking right", "a cat on the right, looking left"),
        ("Left: a dog. RIGHT: a cat.", "Right: a dog. LEFT: a cat."),
        ("the leftmost tree, rightwards, left-handed, right-hand side", None),
        ("facing_left, lefthand", "facing_right, righthand"),
        ("bright, cleft, copyright, upright, rightful", "bright, cleft, copyright, upright, rightful"),
        ("all right, right now, a right angle, left behind", "all right, right now, a right angle, left behind"),
    ],
)
def test_sides_are_exchanged_as_whole_words_and_back_again(text, expected):
    expected = expected or "the rightmost tree, leftwards, right-handed, left-hand side"
    assert exchanged(text) == expected and exchanged(expected) == text


TEXTS = ["a cat on the left", "a cat"]


@pytest.mark.parametrize(
    ("settings", "texts", "expected"),
    [
        ({"flip": False, "mirror_captions": "exchanged"}, TEXTS, []),
        ({"flip": True}, TEXTS, TEXTS),
        ({"flip": True, "mirror_captions": "exchanged"}, TEXTS, ["a cat on the right", "a cat"]),
        ({"flip": True, "mirror_captions": "unmirrored"}, TEXTS, []),
        ({"flip": True, "mirror_captions": "unmirrored"}, TEXTS[1:], ["a cat"]),
    ],
)
def test_captions_of_mirrored_pictures(settings, texts, expected):
    assert mirrored(texts, AugmentationSettings(**settings)) == expected
