"""Edits of many captions: what each makes of a caption, and what it leaves alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.curation import caption_parts, edits
from lora_studio.curation.edits import EDITS, CaptionChange, EditTools, make, preview
from lora_studio.dataset.captions import tidy_lines
from lora_studio.errors import SettingsError

lines = st.text("ab ,.{}|é\n", max_size=40).map(tidy_lines)
NONE = EditTools(count=lambda text: len(text.split()))


def words(text: str) -> int:
    return len(text.replace(",", " , ").split())


CASES = [
    ("prepend", {"text": "anastyle"}, "a cat", "anastyle, a cat"),
    ("prepend", {"text": "anastyle"}, "", "anastyle"),
    ("prepend", {"text": "anastyle"}, "Anastyle, a cat", "Anastyle, a cat"),
    ("prepend", {"text": "ana"}, "anastyle, a cat", "ana, anastyle, a cat"),
    ("prepend", {"text": "x"}, "a\nb", "x, a\nx, b"),
    ("append", {"text": "ink"}, "a cat", "a cat, ink"),
    ("append", {"text": "ink"}, "a cat, Ink", "a cat, Ink"),
    ("append", {"text": "It rains."}, "A cat sits.", "A cat sits. It rains."),
    ("append", {"text": "ink"}, "a cat,", "a cat, ink"),
    ("replace", {"find": "cat", "replacement": "dog"}, "a cat, Cat, category", "a dog, Cat, dogegory"),
    ("replace", {"find": "CAT", "replacement": "dog", "ignore_case": True}, "a cat, Cat", "a dog, dog"),
    ("replace", {"find": "a.c", "replacement": r"\1"}, "a.c abc", r"\1 abc"),
    ("replace", {"find": "ink"}, "a, ink, b", "a, b"),
    ("replace", {"find": "ink"}, "ink, a, ink", "a"),
    ("replace", {"find": "_", "replacement": " "}, "long_hair, solo", "long hair, solo"),
    (
        "replace",
        {"find": r"(\d)girls?\b", "replacement": r"\1 girls", "regular_expression": True},
        "2girls, x",
        "2 girls, x",
    ),
    ("replace", {"find": r"\s+$", "regular_expression": True}, "a\nb", "a\nb"),
    ("remove", {"tags": ["ink"]}, "a cat, Ink, ink bottle, ink", "a cat, ink bottle"),
    ("remove", {"tags": "ink, gold"}, "a cat,ink,gold", "a cat"),
    ("remove", {"tags": ["ink"]}, "a,b", "a,b"),
    ("remove", {"tags": ["cat"]}, "A cat on a mat, cat.", "A cat on a mat"),
    ("remove", {"tags": ["b"]}, "a ||| b, c ||| d", "a ||| c ||| d"),
    ("remove", {"tags": ["b"]}, "a ||| b ||| d", "a |||  ||| d"),
    ("remove", {"tags": ["red"]}, "a {red, big|blue, red} house, red", "a {red, big|blue, red} house"),
    ("remove", {"tags": ["a"]}, "a", ""),
    ("remove", {"tags": ["a"]}, "a\nb, a", "b"),
    ("rename", {"tag": "kitty", "name": "Cat"}, "Kitty, big kitty", "Cat, big kitty"),
    ("rename", {"tag": "kitty", "name": "cat"}, "cat, kitty, x", "cat, x"),
    ("rename", {"tag": "cat", "name": "Cat"}, "a, cat", "a, Cat"),
    ("reorder", {"tags": ["c", "b"]}, "a, B, c", "c, B, a"),
    ("reorder", {"tags": ["a"], "to": "end"}, "a, b, c", "b, c, a"),
    ("reorder", {"tags": ["c"]}, "a ||| b, c", "a ||| c, b"),
    ("deduplicate", {}, "a, b, A, b", "a, b"),
    ("deduplicate", {}, "a, b\nb, a\na, b", "a, b\nb, a"),
    ("deduplicate", {}, "a ||| b, a", "a ||| b"),
    ("trim", {"tokens": 4}, "a b, c d, e", "a b"),
    ("trim", {"tokens": 5}, "a b, c d, e", "a b, c d"),
    ("trim", {"tokens": 7}, "a b, c d, e", "a b, c d, e"),
    ("trim", {"tokens": 5}, "A cat sits. It looks up now.", "A cat sits."),
    ("trim", {"tokens": 2}, "A cat sits there.", "A cat"),
    ("trim", {"tokens": 1}, "a\nb c", "a\nb"),
    ("remove matching", {"pattern": r"^\d+(girl|boy)s?$"}, "1girl, 2Boys, girl", "girl"),
    ("remove matching", {"pattern": "A", "ignore_case": False}, "cat, A", "cat"),
    ("remove style", {}, "A watercolor painting of a cat, sketch", "A cat"),
    ("remove style", {"keep": ["sketch"]}, "a cat, sketch, monochrome", "a cat, sketch"),
]


@pytest.mark.parametrize(("kind", "values", "before", "after"), CASES)
def test_what_an_edit_makes_of_a_caption(kind, values, before, after):
    found = preview({"a.png": before}, make(kind, **values), words)
    assert found == ([CaptionChange("a.png", before, tidy_lines(after))] if before != after else [])


def test_every_kind_of_edit_is_tried():
    assert {kind for kind, *_ in CASES} == set(EDITS)


EXAMPLES = {
    "text": "a", "find": "a", "replacement": "b", "tags": ("a", "b"), "tag": "a", "name": "b", "tokens": 2,
    "pattern": "a",
}  # fmt: skip


def example(kind: str) -> edits.Edit:
    names = {field.name for field in edits.fields(kind)}
    return make(kind, **{name: value for name, value in EXAMPLES.items() if name in names})


@pytest.mark.parametrize("kind", EDITS)
def test_every_edit_tells_what_it_does_and_makes_a_form(kind):
    edit = example(kind)
    assert type(edit).title and type(edit).sentence.endswith(".") and edit.describe()
    for field in edits.fields(kind):
        assert field.title and field.type in ("text", "tags", "number", "flag", "choice")
        assert field.required == (field.default is None)


@given(st.sampled_from(sorted(EDITS)), lines)
def test_edited_captions_are_tidy_and_most_edits_change_nothing_twice(kind, caption):
    once = example(kind).caption(caption, NONE)
    assert tidy_lines(once) == once
    if kind not in ("replace", "trim"):
        assert example(kind).caption(once, NONE) == once


@given(lines, st.sampled_from(["a", "b", "a b", "é"]))
def test_removing_a_tag_leaves_all_others(caption, tag):
    after = make("remove", tags=[tag]).caption(caption, NONE)
    left = [part for line in caption.split("\n") for part in caption_parts.split(line)]
    kept = [part for line in after.split("\n") for part in caption_parts.split(line)]
    assert kept == [part for part in left if caption_parts.key(part) != tag]


@given(lines)
def test_a_shortened_caption_fits_and_is_the_beginning(caption):
    for line, cut in zip(caption.split("\n"), make("trim", tokens=3).caption(caption, NONE).split("\n"), strict=True):
        assert line.startswith(cut) and (len(cut.split()) <= 3)


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        ("replace", {"find": "(a", "regular_expression": True}, r"is no regular expression: missing \) at character 3"),
        ("replace", {"find": "a", "replacement": r"\1", "regular_expression": True}, "invalid group reference"),
        ("remove matching", {"pattern": "*"}, "nothing to repeat at character 1"),
        ("replace", {"find": ""}, "“Find” is empty"),
        ("remove", {"tags": " , "}, "“Tags” is empty"),
        ("prepend", {}, "“Text” is empty"),
        ("trim", {"tokens": 0}, "“Tokens” is wrong"),
        ("reorder", {"tags": "a", "to": "middle"}, "“To” is wrong"),
    ],
)
def test_what_cannot_be_an_edit_is_told(kind, values, says):
    with pytest.raises(SettingsError, match=says):
        make(kind, **values)


@pytest.mark.fault(98)
def test_a_pattern_that_would_run_for_ever_is_stopped(monkeypatch):
    monkeypatch.setattr(edits, "SECONDS", 0.2)
    edit = make("replace", find=r"(a|a)+$", regular_expression=True)
    with pytest.raises(SettingsError, match=r"takes too long.*\[b.png\] Write it more simply"):
        preview({"a.png": "a", "b.png": "a" * 80 + "!"}, edit)


def test_shortening_needs_a_tokenizer():
    with pytest.raises(SettingsError, match="without a tokenizer"):
        preview({"a.png": "a"}, make("trim", tokens=1))


def test_several_edits_are_one_after_the_other():
    chain = [make("remove", tags="a"), make("prepend", text="x")]
    assert preview({"1": "a, b", "2": "x"}, chain) == [CaptionChange("1", "a, b", "x, b")]
    assert edits.describe(chain) == "“a” removed, “x” put in front"
