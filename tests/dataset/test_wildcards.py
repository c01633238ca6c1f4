"""Wildcards: what sd-scripts reads with ``enable_wildcard``, drawn evenly, and everything else left as it is."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.dataset.wildcards import Template


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("a cat", ["a cat"]),
        ("{simple|white} background", ["simple background", "white background"]),
        (
            "a {red|blue} cat, {day|night}",
            ["a red cat, day", "a red cat, night", "a blue cat, day", "a blue cat, night"],
        ),
        ("cat, {ink|}, paper", ["cat, ink, paper", "cat, paper"]),
        ("a {|very big} cat", ["a cat", "a very big cat"]),
        ("{a|||b}", ["a", "", "", "b"]),
        ("{{retro style}}", ["{retro style}"]),
        ("{{a|b}}", ["{a|b}"]),
        ("{{{a|b}}}", ["{a}", "{b}"]),
        ("a {cat} :{", ["a {cat} :{"]),
        ("{a|b", ["{a|b"]),
        ("a|b}", ["a|b}"]),
        ("a  |  b", ["a  |  b"]),
        ("{a|{b|c} d", ["{a|b d", "{a|c d"]),
        ("", [""]),
    ],
)
def test_the_texts_of_a_caption(text, every):
    assert list(Template(text).every()) == every and Template(text).count == len(every)


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("{a|b}", False),
        ("{a}|", False),
        ("{{a|b}}", False),
        (":{", False),
        ("{a|b} :{ ||| c", False),
        ("{a|b", True),
        ("{a|{b|c}}", True),
    ],
)
def test_braces_that_look_like_a_wildcard_and_are_none_are_known(text, broken):
    assert Template(text).broken == broken


def test_options_are_drawn_evenly_independently_and_the_same_on_every_machine():
    drawn = [Template("{a|b|c} {d|e}").draw(7, round_) for round_ in range(600)]
    assert Counter(text[0] for text in drawn) == {"a": 200, "b": 200, "c": 200}
    assert Counter(text[2] for text in drawn) == {"d": 300, "e": 300}
    assert len(Counter(drawn)) == 6 and min(Counter(drawn).values()) > 80
    assert drawn[:6] == ["c e", "a d", "b e", "c d", "b d", "a e"]


@given(st.text("{}|a, ", max_size=200), st.integers(0, 20))
def test_any_braces_are_read(text, round_):
    assert isinstance(Template(text).draw(1, round_), str)


def test_a_long_caption_of_open_braces_is_read_at_once():
    for text in ("{" * 60_000, "{" + "|" * 60_000, "{a|" * 20_000):
        assert Template(text).draw(0, 0) == text.replace("{{", "{") and Template(text).broken == (
            "|" in text and "|||" not in text
        )
