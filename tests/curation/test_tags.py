"""Tags: how frequent they are, those in all captions, and words about the style."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.curation import style_words, tags
from lora_studio.curation.edits import RemoveStyle, RemoveTags, preview
from lora_studio.curation.tags import TagCount, frequencies, remarks


def test_frequencies_count_each_picture_once_under_the_usual_spelling():
    found = frequencies({"1": "ink, a cat\nInk, sea", "2": "Ink, Ink bottle", "3": "", "4": "ink , sea."})
    assert found == [TagCount("ink", 3), TagCount("sea", 2), TagCount("a cat", 1), TagCount("Ink bottle", 1)]


@given(st.dictionaries(st.text("12345", min_size=1), st.text("aAb, \n.", max_size=20)))
def test_frequencies_agree_with_a_count_one_by_one(captions):
    sets = [
        {part.strip(" .").lower() for line in text.split("\n") for part in line.split(",")} - {""}
        for text in captions.values()
    ]
    for tag, count in frequencies(captions):
        assert count == sum(tag.strip(" .").lower() in one for one in sets)
    assert len(frequencies(captions)) == len(set().union(*sets))


def test_tags_in_all_captions_are_told_with_what_to_do():
    captions = {"1": "ana, cat, paper", "2": "ana, dog, paper", "3": "paper, ana", "4": ""}
    (remark,) = remarks(captions, trigger="Ana")
    assert remark.what == "“paper” stands in all 3 captions." and "drawn unasked" in remark.do
    assert (remark.tags, remark.names) == ((TagCount("paper", 3),), ("1", "2", "3"))
    assert remark.edit == RemoveTags(tags=("paper",))
    (both,) = remarks(captions)
    assert both.what == "“ana”, “paper” stand in all 3 captions."
    assert remarks({"1": "x", "2": "x"}) == []


def test_words_about_the_style_are_told_with_the_edit_that_removes_them():
    captions = {"1": "a drawing of a cat, sketch", "2": "a dog, Sketch", "3": "a house", "4": "ana sketch, ink bottle"}
    (remark,) = remarks(captions)
    assert remark.what == "2 captions say how the picture is made: “sketch”, “a drawing of”."
    assert "what captions leave unsaid becomes the style" in remark.do and remark.names == ("1", "2")
    after = {name: new for name, _, new in preview(captions, remark.edit)}
    assert after == {"1": "a cat", "2": "a dog"}
    assert remarks({"1": "sketch, a cat"}, trigger="sketch") == []


STYLED = [
    "watercolor (medium)", r"watercolor \(medium\)", "watercolor_(medium)", "Traditional Media", "sketch", "monochrome",
    "1990s (style)", "ink", "in the style of Monet", "a drawing of", "An old black and white photo of",
    "The image is a digital illustration of", "painted in bold strokes",
]  # fmt: skip
PLAIN = [
    "ink bottle", "sketchbook", "a sketchpad on a table", "a painter", "pencil case", "oil lamp", "photo frame",
    "marker pen", "a woman in style", "a photograph on the wall", "comic book store", "black and white cat", "inkwell",
]  # fmt: skip


@pytest.mark.parametrize("text", STYLED)
def test_what_is_about_the_style_is_found(text):
    opens = text.endswith(" of")
    caption = f"{text} a cat, sea" if opens else f"a cat, {text}, sea"
    assert style_words.found(caption) == [text]
    assert style_words.without(caption).casefold() == "a cat, sea"


@pytest.mark.parametrize("text", PLAIN)
def test_what_a_picture_shows_is_no_style(text):
    assert style_words.found(f"{text}, a {text} here") == []


def test_a_sentence_stays_one():
    text = "A delicate watercolor painting of a cat in the style of old masters. It sleeps, drawn in ink."
    assert style_words.without(text) == "A cat. It sleeps."
    assert style_words.without("A cat, done in pencil, sleeps.") == "A cat, sleeps."


@given(st.lists(st.sampled_from([*STYLED[:10], *PLAIN, "a cat", "x"]), max_size=6).map(", ".join))
def test_nothing_is_left_after_removal_and_plain_tags_stay(caption):
    after = RemoveStyle().line(caption, None)
    assert style_words.found(after) == []
    left = {one.tag for one in tags.frequencies({"1": after})}
    assert {part for part in caption.split(", ") if part in PLAIN} <= left


def test_the_list_of_style_words_is_in_order():
    table = tomllib.loads(Path(style_words.__file__).with_suffix(".toml").read_text("utf-8"))
    assert table["tags"] == sorted(set(table["tags"])) and table["media"] == sorted(set(table["media"]))
    for words in table.values():
        assert all(word == word.strip().lower() and "_" not in word for word in words)
    assert not [tag for tag in table["tags"] if tag.endswith(tuple(table["endings"]))]
