"""Phrases are found as whole words, in any case, and replaced with what is around them left tidy."""

import pytest

from lora_studio.dataset.phrases import names, replaced


@pytest.mark.parametrize(
    ("text", "phrase", "by", "expected"),
    [
        ("ink, a cat", "ink", "", "a cat"),
        ("ink, a cat", "ink", "drawing", "drawing, a cat"),
        ("a cat, INK, red", "ink", "", "a cat, red"),
        ("a photo of Sks  Dog, red", "sks dog", "dog", "a photo of dog, red"),
        ("A cat, drawn in MyStyle.", "mystyle", "", "A cat, drawn in."),
        ("pink inks", "ink", "", "pink inks"),
        ("GROẞ, in STRASSE x", "straße", "way", "GROẞ, in way x"),
        ("ink", "ink", "", ""),
        ("a  cat ,", " ", "x", "a  cat ,"),
    ],
)
def test_a_phrase_is_replaced_or_left_out(text, phrase, by, expected):
    assert replaced(text, phrase, by) == expected
    assert phrase == " " or names(text, phrase) == (expected != text)
