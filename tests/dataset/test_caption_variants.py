"""What training sees of a caption: variants are few, distinct and repeatable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.config.slices import DatasetSettings
from lora_studio.dataset.caption_variants import VARIANTS, all_variants, variants, with_trigger

tags = st.lists(st.text("abcdefgh ", min_size=1, max_size=6).map(str.strip).filter(bool), min_size=1, max_size=12)


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
