"""Tables of captions and the ``.json`` beside a picture: a faulty entry costs only itself."""

import contextlib
import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.dataset.caption_tables import CSV, JSONL, TABLES, Table, of_picture, read
from lora_studio.dataset.captions import MAX_BYTES, tidy_lines

words = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
paths = st.text("abc./ é", min_size=1).filter(
    lambda name: ".." not in name and not name.startswith("/") and name.strip("./ ")
)
anything = st.recursive(
    st.none() | st.booleans() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
)


def read_jsonl(data: bytes) -> Table:
    return read(JSONL, data)


@given(st.dictionaries(paths, words, max_size=6))
def test_a_written_table_is_read_back(captions):
    by_path = {}
    for name, text in captions.items():
        by_path.setdefault(str(PurePosixPath(name)), text)
    lines = "\n".join(json.dumps({"file_name": name, "text": text}) for name, text in by_path.items())
    assert read_jsonl(lines.encode()) == ({name: tidy_lines(text) for name, text in by_path.items()}, [])


@given(st.binary(max_size=300))
def test_no_bytes_break_a_table_or_the_json_beside_a_picture(data):
    for name in TABLES:
        table = read(name, data)
        assert all(isinstance(text, str) for text in (*table.captions.values(), *table.faults))
    with contextlib.suppress(ValueError):
        assert of_picture(data)


@given(st.lists(anything, max_size=4))
def test_no_json_breaks_a_table(values):
    table = read_jsonl("\n".join(map(json.dumps, values)).encode())
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
    table = read_jsonl(
        f'{{"file_name": "first.png", "text": "1"}}\n\n{line}\n{{"file_name": "last.png", "caption": "2"}}\n'.encode()
    )
    assert table.captions == {"first.png": "1", "last.png": "2"} and table.faults == [f"line 3 {fault}"]


def test_of_two_lines_for_one_file_the_first_counts():
    assert read_jsonl(b'{"file_name": "a.png", "text": "1"}\n{"file_name": "./a.png", "text": "2"}') == (
        {"a.png": "1"},
        ["line 2 names a.png again"],
    )


@pytest.mark.fault(88)
@pytest.mark.parametrize(
    ("data", "captions", "faults"),
    [
        ("file_name,text\np0.png,a house 0\np1.png,a house 1", {"p0.png": "a house 0", "p1.png": "a house 1"}, []),
        ('\ufeffFile_Name;Caption\r\na.png;"red; ""big"", round"\r\n', {"a.png": 'red; "big", round'}, []),
        ("id\timage\tprompt\n7\tx\\a.png\tink\n\n", {"x/a.png": "ink"}, []),
        ('tags,file_name\n"a, b",a.png\n', {"a.png": "a, b"}, []),
        ('file_name,text\na.png,"one\n two"\n', {"a.png": "one\ntwo"}, []),
        ("a.png,a cat\n", {}, ["line 1 has no columns file_name and text"]),
        ("", {}, ["line 1 has no columns file_name and text"]),
        (
            "file_name,text\na.png,ink, gold\n,x\nb.png\n../c.png,x\nd.png,ok\nd.png,again\n",
            {"d.png": "ok"},
            [
                "line 2 has more fields than the first line: a text with commas must be in quotes",
                "line 3 has no file_name",
                "line 4 has no text",
                "line 5 names a file outside the folder",
                "line 7 names d.png again",
            ],
        ),
        (
            'file_name,text\na.png,ok\nb.png,"' + "x" * 200_000,
            {"a.png": "ok"},
            ["line 3 and all that follow are not CSV (field larger than field limit (131072))"],
        ),
    ],
)
def test_csv_is_read_as_image_folder_and_spreadsheets_write_it(data, captions, faults):
    assert read(CSV, data.encode()) == (captions, faults)


@pytest.mark.fault(88)
@pytest.mark.parametrize(
    ("table", "captions", "faults"),
    [
        (
            {"p0": {"caption": "a tree", "tags": "tree, sky"}, "1_a/p1.png": {"caption": "b"}, "p2": {"tags": "c, d"}},
            {"p0": "a tree, tree, sky", "1_a/p1.png": "b", "p2": "c, d"},
            [],
        ),
        ({"p0": {"caption": "one\ntwo", "tags": "x"}}, {"p0": "one, x\ntwo, x"}, []),
        (
            {
                "/data/set/p0.png": {"caption": "a"},
                "D:\\set\\p1.png": {"caption": "b"},
                "\\\\nas\\x\\p2": {"tags": "c"},
            },
            {"/data/set/p0.png": "a", "/set/p1.png": "b", "/p2": "c"},
            [],
        ),
        ({"p0": "a tree"}, {"p0": "a tree"}, []),
        (
            {"p0": {"train_resolution": [512, 512]}, "../p1": {"caption": "a"}, "/x/../p2": {"caption": "a"}, "p3": 3},
            {},
            [
                "entry 1 (p0) has no caption, text or tags",
                "entry 2 names a file outside the folder",
                "entry 3 names a file outside the folder",
                "entry 4 (p3) has no caption, text or tags",
            ],
        ),
        ([1], {}, ["it is not a JSON object"]),
    ],
)
def test_the_tables_of_other_trainers_are_read(table, captions, faults):
    assert read("meta_cap.json", json.dumps(table).encode()) == (captions, faults)


@pytest.mark.parametrize("data", [b"nonsense", b"[" * 100_000, b'{"a": ' * 100_000, b""])
def test_a_table_that_is_not_json_is_named(data):
    assert read("meta_cap.json", data) == ({}, ["it is not JSON"])


@pytest.mark.parametrize(
    ("value", "caption"),
    [
        ({"caption": " a  tree "}, "a tree"),
        ({"text": "a tree", "seed": 3}, "a tree"),
        ({"prompt": "a tree", "tags": ["tree", "sky"]}, "a tree, tree, sky"),
        ({"caption": "", "tags": "tree, sky"}, "tree, sky"),
        ({"captions": ["one", "two\nthree"]}, "one\ntwo\nthree"),
        ({"version": "1.0", "captions": {"florence": "one", "cog": "two"}, "tags": {"wd": "x"}}, "one, x\ntwo, x"),
        ("a tree", "a tree"),
        (["one", "two"], "one\ntwo"),
    ],
)
def test_the_json_beside_a_picture(value, caption):
    assert of_picture(json.dumps(value).encode("utf-8-sig")) == caption


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"nodes": [], "links": []}, "has no caption, text or tags"),
        ({"tags": {"1girl": 0.9}}, "has no caption, text or tags"),
        ([{"caption": "a"}], "has no caption, text or tags"),
        ({"caption": "x" * (MAX_BYTES + 1)}, f"has a caption of {MAX_BYTES + 1} characters"),
    ],
)
def test_a_json_without_a_caption_says_what_is_missing(value, fault):
    with pytest.raises(ValueError, match=f"^{fault}$"):
        of_picture(json.dumps(value).encode())
