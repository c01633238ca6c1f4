"""Captions: decoding never fails, a table's faulty line costs only itself, variants are few, distinct, repeatable."""

import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.config.slices import DatasetSettings
from lora_studio.dataset.captions import (
    MAX_BYTES,
    VARIANTS,
    all_variants,
    decode,
    read_table,
    tidy,
    variants,
    with_trigger,
)

words = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
paths = st.text("abc./ é", min_size=1).filter(
    lambda name: ".." not in name and not name.startswith("/") and name.strip("./ ")
)
anything = st.recursive(
    st.none() | st.booleans() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
)
tags = st.lists(st.text("abcdefgh ", min_size=1, max_size=6).map(str.strip).filter(bool), min_size=1, max_size=12)


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


@given(st.dictionaries(paths, words, max_size=6))
def test_a_written_table_is_read_back(captions):
    by_path = {}
    for name, text in captions.items():
        by_path.setdefault(str(PurePosixPath(name)), text)
    lines = "\n".join(json.dumps({"file_name": name, "text": text}) for name, text in by_path.items())
    assert read_table(lines.encode()) == ({name: tidy(text) for name, text in by_path.items()}, [])


@given(st.binary(max_size=300))
def test_no_bytes_break_a_table(data):
    table = read_table(data)
    assert all(number >= 1 for number, _ in table.faults)


@given(st.lists(anything, max_size=4))
def test_no_json_breaks_a_table(values):
    table = read_table("\n".join(map(json.dumps, values)).encode())
    assert len(table.captions) + len(table.faults) == len(values)


@pytest.mark.fault(61)
@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("nonsense", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"file_name": "a.png", "text": 1' + "0" * 5000 + "}", "is not JSON"),
        ('"a.png"', "is not a JSON object"),
        ('{"text": "a"}', "has no file_name"),
        ('{"file_name": 3, "text": "a"}', "has no file_name"),
        ('{"file_name": "a.png"}', "has no text"),
        ('{"file_name": "a.png", "text": ["b"]}', "has no text"),
        *(
            (json.dumps({"file_name": name, "text": "a"}), "names a file outside the folder")
            for name in ("/etc/passwd", "../a.png", "x/../../a.png", "C:\\a.png", "\\\\server\\a.png")
        ),
        (
            json.dumps({"file_name": "a.png", "text": "x" * (MAX_BYTES + 1)}),
            f"has a caption of {MAX_BYTES + 1} characters",
        ),
    ],
)
def test_a_faulty_line_is_named_and_the_others_count(line, fault):
    table = read_table(
        f'{{"file_name": "first.png", "text": "1"}}\n\n{line}\n{{"file_name": "last.png", "caption": "2"}}\n'.encode()
    )
    assert table.captions == {"first.png": "1", "last.png": "2"} and table.faults == [(3, fault)]


def test_of_two_lines_for_one_file_the_first_counts():
    assert read_table(b'{"file_name": "a.png", "text": "1"}\n{"file_name": "./a.png", "text": "2"}') == (
        {"a.png": "1"},
        [(2, "names a.png again")],
    )


@pytest.mark.parametrize(
    ("caption", "trigger", "expected"),
    [
        ("cat, ink", "", "cat, ink"),
        ("cat, ink", "mystyle", "mystyle, cat, ink"),
        ("", "mystyle", "mystyle"),
        ("", "", ""),
        ("mystyle, cat", "mystyle", "mystyle, cat"),
        ("Mystyle cat", "mystyle", "Mystyle cat"),
        ("mystyles, cat", "mystyle", "mystyle, mystyles, cat"),
        ("a cat in mystyle", "mystyle", "mystyle, a cat in mystyle"),
        ("A sentence, with a comma.", " mystyle ", "mystyle, A sentence, with a comma."),
    ],
)
def test_the_trigger_word_comes_first_and_once(caption, trigger, expected):
    assert variants(caption, trigger, DatasetSettings()) == [expected]
    assert with_trigger(caption, trigger) == expected


def test_shuffled_tags_keep_the_first_in_place():
    found = variants("a, b, c, d, e", "t", DatasetSettings(shuffle_tags=True, keep_tags=2))
    assert found[0] == "t, a, b, c, d, e" and len(found) > 2
    assert all(
        text.startswith("t, a, b, ") and sorted(text.split(", ")) == ["a", "b", "c", "d", "e", "t"] for text in found
    )


def test_the_trigger_stays_first_even_if_no_tag_is_kept():
    for caption in ("a, b, c, d", "t a, b, c, d", "a, t, b, c"):
        found = variants(caption, "t", DatasetSettings(shuffle_tags=True, keep_tags=0))
        assert len(found) > 1 and all(text.startswith("t") and text.count("t") == 1 for text in found)


@given(tags, st.integers(0, 4), st.integers(0, 5), st.integers(1, VARIANTS))
def test_variants_are_few_distinct_whole_and_repeatable(words, keep, seed, limit):
    settings = DatasetSettings(shuffle_tags=True, keep_tags=keep)
    found = variants(", ".join(words), "", settings, seed, limit)
    assert 1 <= len(found) <= limit and len(set(found)) == len(found)
    assert all(sorted(text.split(", ")) == sorted(words) and text.split(", ")[:keep] == words[:keep] for text in found)
    assert found == variants(", ".join(words), "", settings, seed, limit)


def test_orders_are_the_same_on_every_machine():
    assert variants("a, b, c, d", "", DatasetSettings(shuffle_tags=True), seed=3, limit=3) == [
        "a, b, c, d",
        "a, c, d, b",
        "a, c, b, d",
    ]


def test_many_captions_have_fewer_variants_each():
    settings, long = DatasetSettings(shuffle_tags=True), ", ".join("abcdefgh")
    assert len(all_variants([long] * 10, "", settings)[0]) > 4
    assert len(all_variants([long] * 5000, "", settings)[0]) == 2
