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
        ("a cat in mystyle", "mystyle", "a cat in mystyle"),
        ("A cat, drawn in MyStyle.", "mystyle", "A cat, drawn in MyStyle."),
        ("cat, MyStyle, ink", "mystyle", "mystyle, cat, ink"),
        ("cat, mystyle, mystyle", "mystyle", "mystyle, cat"),
        ("my style: a cat, my style", "my style", "my style: a cat, my style"),
        ("an ohwx  woman", "ohwx woman", "an ohwx  woman"),
        ("ohwx, woman", "ohwx woman", "ohwx woman, ohwx, woman"),
        ("mystyle_2, not-mystyle2", "mystyle", "mystyle, mystyle_2, not-mystyle2"),
        ("a (c++) cat", "c++", "a (c++) cat"),
        ("GROẞ, cat", "groß", "GROẞ, cat"),
        ("cat, gold", "ink, mystyle", "ink, mystyle, cat, gold"),
        ("Ink, mystyle, cat", "ink, mystyle", "Ink, mystyle, cat"),
        ("cat, mystyle, ink", "ink, mystyle", "ink, mystyle, cat"),
        ("A sentence, with a comma.", " mystyle ", "mystyle, A sentence, with a comma."),
    ],
)
def test_the_trigger_word_comes_first_and_once_or_stays_where_the_caption_says_it(caption, trigger, expected):
    assert variants(caption, trigger, DatasetSettings()) == [expected]
    assert with_trigger(caption, trigger) == expected


def test_shuffled_tags_keep_the_first_in_place():
    found = variants("a, b, c, d, e", "t", DatasetSettings(shuffle_tags=True, keep_tags=2))
    assert found[0] == "t, a, b, c, d, e" and len(found) > 2
    assert all(
        text.startswith("t, a, b, ") and sorted(text.split(", ")) == ["a", "b", "c", "d", "e", "t"] for text in found
    )


def test_the_trigger_stays_first_even_if_no_tag_is_kept():
    commas = variants("a, u, b, c, t", "t, u", DatasetSettings(shuffle_tags=True, keep_tags=0))
    assert len(commas) > 1 and all(text.startswith("t, u, ") and text.count("u") == 1 for text in commas)
    for caption in ("a, b, c, d", "t a, b, c, d", "a, t, b, c", "a, b, c t, d"):
        found = variants(caption, "t", DatasetSettings(shuffle_tags=True, keep_tags=0))
        assert len(found) > 1 and all("t" in text.split(", ")[0] and text.count("t") == 1 for text in found)


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


LINES = "a boat in a harbour\nred ship, water, evening\nA wooden vessel rests quietly."


def test_each_line_is_a_variant_and_counts_the_same():
    boat, ship, vessel = LINES.split("\n")
    assert variants(LINES, "", DatasetSettings()) == [boat, ship, vessel]
    assert variants(LINES, "t", DatasetSettings()) == [f"t, {boat}", f"t, {ship}", f"t, {vessel}"]
    found = variants(LINES, "", DatasetSettings(shuffle_tags=True, keep_tags=0))
    assert [len([text for text in found if sorted(text) == sorted(line)]) for line in (boat, ship, vessel)] == [2, 2, 2]
    assert found[2:4] == [ship, "evening, red ship, water"]
    assert len(set(variants("\n".join(map(str, range(100))), "", DatasetSettings()))) == 100


def test_lines_can_be_joined_to_one_text():
    joined = DatasetSettings(caption_lines="joined")
    assert variants(LINES, "", joined) == [" ".join(LINES.split("\n"))]


def test_wildcards_give_each_of_their_texts_once():
    caption = "a {red|blue} cat, {day|night}"
    assert variants(caption, "t", DatasetSettings()) == [
        "t, a red cat, day",
        "t, a red cat, night",
        "t, a blue cat, day",
        "t, a blue cat, night",
    ]
    assert variants(caption, "t", DatasetSettings(wildcards=False)) == [f"t, {caption}"]
    assert len(variants("{a|b|c} {d|e|f}", "", DatasetSettings())) == VARIANTS
    assert variants("{t|b}, c", "t", DatasetSettings()) == ["t, c", "t, b, c"]


KEPT = "1girl, miku ||| stage, microphone, smile ||| best quality, rating: general"


def test_tags_before_and_after_the_separators_stay_in_place():
    whole = "t, 1girl, miku, stage, microphone, smile, best quality, rating: general"
    assert variants(KEPT, "t", DatasetSettings()) == [whole]
    found = variants(KEPT, "t", DatasetSettings(shuffle_tags=True, tag_dropout=0.5))
    assert found[0] == whole and len(set(found)) > 4
    for text in found:
        middle = text.removeprefix("t, 1girl, miku, ").removesuffix("best quality, rating: general").strip(" ,")
        assert text.startswith("t, 1girl, miku, ") and text.endswith("best quality, rating: general")
        assert {*filter(None, middle.split(", "))} <= {"stage", "microphone", "smile"}


def test_one_separator_keeps_the_beginning_whatever_the_number_of_kept_tags():
    settings = DatasetSettings(shuffle_tags=True, keep_tags=3)
    assert {text.split(", ")[0] for text in variants("a ||| b, c, d, e", "", settings)} == {"a"}
    assert len({text.split(", ")[1] for text in variants("a ||| b, c, d, e", "", settings)}) > 1


def test_tag_dropout_leaves_out_its_share_but_nothing_that_is_kept():
    """Over 250 captions: each of the 20 free tags is missing in a quarter of the variants."""
    captions = [f"first {index}, {', '.join(f'tag {place}' for place in range(20))}, Safe" for index in range(250)]
    settings = DatasetSettings(tag_dropout=0.25, protected_tags=["safe"])
    found = [text.split(", ") for texts in all_variants(captions, "t", settings) for text in texts]
    assert len(found) == 250 * VARIANTS
    for place in range(20):
        assert sum(f"tag {place}" not in tags for tags in found) / len(found) == pytest.approx(0.25, abs=0.02)
    assert all(tags[0] == "t" and tags[1].startswith("first ") and tags[-1] == "Safe" for tags in found)
    assert all(texts[0] == f"t, {caption}" for texts, caption in zip(all_variants(captions, "t", settings), captions))


def test_word_dropout_leaves_out_its_share_of_sentences_but_nothing_that_is_kept():
    """Over 60 captions: each of the 12 free words is missing in a quarter of the variants."""
    sentence = " ".join(f"word{place}" for place in range(12))
    captions = [f"{sentence}, an Old t house, {index}" for index in range(60)]
    settings = DatasetSettings(word_dropout=0.25, protected_tags=["an old", "house", *map(str, range(60))])
    made = all_variants(captions, "t", settings)
    found = [text for texts in made for text in texts]
    assert len(found) == 60 * VARIANTS and [texts[0] for texts in made] == captions
    for place in range(12):
        share = sum(f"word{place}" not in text.replace(",", "").split() for text in found) / len(found)
        assert share == pytest.approx(0.25, abs=0.04)
    assert all(texts[1].endswith(f", an Old t house, {index}") for index, texts in enumerate(made))


def test_words_left_out_are_the_same_on_every_machine():
    settings = DatasetSettings(word_dropout=0.5, protected_tags=["fast asleep"])
    assert variants("a small cat, fast asleep on paper", "ink", settings, seed=1, limit=4) == [
        "ink, a small cat, fast asleep on paper",
        "ink, small, fast asleep",
        "ink, fast asleep",
        "ink, a cat, fast asleep on paper",
    ]


def test_words_before_and_after_the_separators_are_never_left_out():
    settings = DatasetSettings(word_dropout=0.6)
    found = variants("a cat ||| b c d ||| on paper", "t", settings)
    assert len(set(found)) > 2
    assert all(text.startswith("t, a cat") and text.endswith("on paper") for text in found)
    tags = variants("x a cat, ink ||| b c", "a, t", DatasetSettings(word_dropout=0.9, tag_dropout=0.5))
    assert all(text.startswith("a, t, x a cat, ink") for text in tags)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a cat", "t, photo of a cat, best quality"),
        ("", "t, photo of, best quality"),
        ("a t cat", "photo of a t cat, best quality"),
        ("one\ntwo", "t, photo of one, best quality"),
    ],
)
def test_prefix_and_suffix_stand_between_trigger_and_end(caption, expected):
    settings = DatasetSettings(caption_prefix="photo of", caption_suffix=", best quality")
    assert variants(caption, "t", settings)[0] == expected


@pytest.mark.parametrize("caption", ["||| t, a, b", "|||t", "t, x ||| a", "t ||| x, a", "|||t, x|||a"])
@pytest.mark.parametrize("trigger", ["t", "t, x"])
def test_a_trigger_word_behind_the_separator_is_never_left_out(caption, trigger):
    settings = DatasetSettings(shuffle_tags=True, tag_dropout=0.9)
    for text in variants(caption, trigger, settings):
        assert text.split(", ")[: trigger.count(",") + 1] == trigger.split(", ")


def test_prefix_and_suffix_may_hold_separators_and_wildcards():
    settings = DatasetSettings(
        shuffle_tags=True, caption_prefix="1girl, miku |||", caption_suffix="||| {masterpiece|best}"
    )
    for text in variants("a, b, c, d", "", settings):
        assert text.startswith("1girl, miku, ") and text.endswith((", masterpiece", ", best"))


@pytest.mark.parametrize("settings", [
    {}, {"shuffle_tags": True}, {"tag_dropout": 0.5}, {"word_dropout": 0.5},
    {"caption_lines": "joined", "wildcards": False},
])  # fmt: skip
@given(caption=st.text("ab{}|,\n t", max_size=60), limit=st.integers(1, VARIANTS))
def test_any_caption_has_variants_without_separators_and_the_same_every_time(settings, caption, limit):
    made = DatasetSettings(**settings)
    found = variants(caption, "t", made, 5, limit)
    assert found and found == variants(caption, "t", made, 5, limit)
    assert all("\n" not in text and "t" in text for text in found)
