"""Tables of captions with other captions: nothing else in them changes."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.curation.caption_files import json_content, text_content
from lora_studio.curation.history import FileEdit
from lora_studio.curation.table_rows import CaptionTable, members, replaced
from lora_studio.dataset import caption_tables
from lora_studio.dataset.caption_tables import CSV, JSONL
from lora_studio.dataset.captions import decode, tidy_lines

words = st.text(st.sampled_from('ab é猫",;{}[]\\\t\n:'), max_size=12)
captions = words.map(tidy_lines)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
)
objects = st.dictionaries(words, values, max_size=4)
layouts = st.sampled_from([{}, {"indent": 2}, {"ensure_ascii": False}, {"separators": (",", ":")}])
names = st.lists(st.sampled_from(["a.png", "sub/b.png", "c.png", "d.png"]), unique=True, min_size=1)
codecs = st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])


@given(objects, layouts)
def test_members_are_where_they_are(entry, layout):
    text = json.dumps(entry, **layout)
    assert {key: json.loads(text[start:end]) for key, (start, end) in members(text).items()} == entry


@given(objects, objects, layouts)
def test_replaced_members_are_all_that_changes(entry, changes, layout):
    new = json.loads(replaced(json.dumps(entry, **layout), changes))
    assert new == entry | changes and list(new) == [*entry, *(key for key in changes if key not in entry)]


@given(names, objects, st.data(), codecs, st.sampled_from(["\n", "\r\n"]))
def test_a_jsonl_changes_in_the_lines_that_were_asked_for(pictures, others, data, codec, end):
    rows = [{**others, "text": data.draw(captions), "file_name": name} for name in pictures]
    lines = [json.dumps(row) for row in rows]
    before = (end.join(["not JSON", *lines]) + end).encode(codec)
    changes = data.draw(st.dictionaries(st.sampled_from(pictures), captions, min_size=1))
    table = CaptionTable(JSONL, before)
    after = table.with_captions(changes)
    texts = {row["file_name"]: row["text"] for row in rows}
    assert caption_tables.read(JSONL, after).captions == texts | changes
    for name, old, new in zip(["", *pictures], ["not JSON", *lines], decode(after)[0].split(end), strict=False):
        assert new == old if name not in changes else json.loads(new) == {**json.loads(old), "text": changes[name]}
    assert CaptionTable(JSONL, after).with_raw({name: table.raw(name) for name in changes}) == before


@given(names, st.data(), codecs, st.sampled_from([",", ";", "\t"]), st.sampled_from(["\n", "\r\n"]))
def test_a_csv_changes_in_the_lines_that_were_asked_for(pictures, data, codec, delimiter, end):
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end)
    texts = {name: data.draw(captions) for name in pictures}
    writer.writerow(["n", "file_name", "text", "more"])
    writer.writerows([[number, name, text, data.draw(words)] for number, (name, text) in enumerate(texts.items())])
    before = out.getvalue().encode(codec)
    changes = data.draw(st.dictionaries(st.sampled_from(pictures), captions, min_size=1))
    table = CaptionTable(CSV, before)
    after = table.with_captions(changes)
    assert caption_tables.read(CSV, after).captions == texts | changes
    new = CaptionTable(CSV, after)
    for name in pictures:
        assert new.others(name) == table.others(name)
        assert name in changes or new.raw(name) == table.raw(name)


@given(names, objects, st.data(), layouts)
def test_a_table_of_sd_scripts_changes_in_the_entries_that_were_asked_for(pictures, others, data, layout):
    own = {key: value for key, value in others.items() if key not in (*caption_tables.OBJECT_TEXTS, "tags")}
    before = json.dumps({name: {**own, "caption": "old"} for name in pictures}, **layout).encode()
    wanted = captions.filter(bool)
    changes = data.draw(st.dictionaries(st.sampled_from(pictures), wanted, min_size=1))
    after = CaptionTable("meta_cap.json", before).with_captions(changes)
    assert caption_tables.read("meta_cap.json", after).captions == dict.fromkeys(pictures, "old") | changes
    expected = {name: {**own, "caption": changes.get(name, "old")} for name in pictures}
    assert json.loads(after) == expected and list(json.loads(after)) == pictures


@given(objects, st.sampled_from(["caption", "text", "captions"]), st.data(), layouts)
def test_a_json_beside_a_picture_holds_what_was_written(others, key, data, layout):
    own = {name: value for name, value in others.items() if name not in caption_tables.OBJECT_TEXTS}
    texts = data.draw(captions.filter(bool) | st.lists(captions.filter(bool), min_size=1, max_size=3))
    tags = data.draw(st.sampled_from([{}, {"tags": "a, b"}, {"tags": ["a", "b"]}]))
    text = data.draw(captions.filter(bool))
    after = json_content(json.dumps({**own, **tags, key: texts}, **layout).encode(), text)
    if after is not None:
        assert caption_tables.of_picture(after) == text
        assert {name: json.loads(after)[name] for name in own} == own
    else:
        assert text.strip(" ,") != text or ",," in text.replace(" ", "")


@given(captions, captions, codecs, st.sampled_from(["", "\n", "\r\n"]))
def test_a_text_file_holds_what_was_written(old, new, codec, end):
    after = text_content((old + end).encode(codec), new)
    assert tidy_lines(decode(after)[0]) == new
    assert not new or decode(after)[0].endswith("\n") == (end != "")


@given(st.none() | st.binary(max_size=12), st.none() | st.binary(max_size=12))
def test_an_edit_of_a_file_goes_both_ways(before, after):
    edit = FileEdit.between("a", before, after)
    assert FileEdit.model_validate_json(edit.model_dump_json()) == edit
    assert (edit.applied(before, False), edit.applied(after, True)) == (after, before)


@pytest.mark.parametrize("raw", ['{"a.png": {"caption": "x"}', "[1]", '"x"', ""])
def test_what_is_no_table_has_no_entries(raw):
    assert caption_tables.read("meta_cap.json", raw.encode()).captions == {}
