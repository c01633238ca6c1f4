"""Captions: decoding never fails, and lines become clean text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.dataset.captions import (
    decode,
    tidy,
    tidy_lines,
)

words = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


@pytest.mark.fault(18)
@given(st.binary(max_size=200))
def test_any_bytes_decode_and_tidy_to_one_clean_line(data):
    text = tidy(decode(data)[0])
    assert "\n" not in text and "\0" not in text and text == text.strip() and text.encode().decode() == text


@given(words.filter(lambda text: "\0" not in text and not text.startswith("\ufeff")))
def test_utf8_is_read_as_it_is(text):
    assert decode(text.encode()) == (text, "")


@given(
    words.filter(lambda text: "\0" not in text and not text.startswith("\ufeff")),
    st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]),
)
def test_a_byte_order_mark_names_the_encoding(text, encoding):
    assert decode(text.encode(encoding)) == (text, "")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a  b\tc\r\n d", "a b c d"),
        ("\ufeff a\0b\x1b[31m", "ab[31m"),
        ("half \ud800 pair", "half  pair"),
        ("👩‍🎨 <b>&amp;", "👩‍🎨 <b>&amp;"),
    ],
)
def test_tidy_keeps_everything_but_control_characters(text, line):
    assert tidy(text) == line


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a  b\tc", "a b c"),
        (" one\r\n\r\n two \rthree\n\n", "one\ntwo\nthree"),
        ("\ufeffone\n\ufeff two\n\0\n", "one\ntwo"),
        ("one\u2028still one", "one still one"),
        ("", ""),
    ],
)
def test_lines_are_tidied_one_by_one(text, lines):
    assert tidy_lines(text) == lines
