"""Captions: decoding never fails, and a table's faulty line costs only itself."""

import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.dataset.captions import (
    MAX_BYTES,
    decode,
    read_table,
    tidy,
    tidy_lines,
)

words = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
paths = st.text("abc./ é", min_size=1).filter(
    lambda name: ".." not in name and not name.startswith("/") and name.strip("./ ")
)
anything = st.recursive(
    st.none() | st.booleans() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
)


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


@given(st.dictionaries(paths, words, max_size=6))
def test_a_written_table_is_read_back(captions):
    by_path = {}
    for name, text in captions.items():
        by_path.setdefault(str(PurePosixPath(name)), text)
    lines = "\n".join(json.dumps({"file_name": name, "text": text}) for name, text in by_path.items())
    assert read_table(lines.encode()) == ({name: tidy_lines(text) for name, text in by_path.items()}, [])


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
