"""Learned words in texts: found by their tokens, kept together, and weighed as any word."""

from functools import cache

import pytest

from lora_studio.texts.chunks import LITERAL, Reading, read, seen
from lora_studio.texts.learned_words import LearnedWord, grouped, named, without_prefix
from lora_studio.texts.tokenizer import Tokenizer

V = 49408
"""Of CLIP's vocabulary."""


@cache
def clip() -> Tokenizer:
    return Tokenizer.shipped()


def word(text: str, count: int, first: int = V) -> LearnedWord:
    return LearnedWord(text, tuple(clip().tokens(text)), tuple(range(first, first + count)))


def inner(text: str, *words: LearnedWord, reading: Reading = LITERAL) -> list[list[int]]:
    """The tokens of each chunk, without marks and padding."""
    chunks = read(text, reading, [clip()], [words]).chunks[0]
    return [chunk.tokens[1 : chunk.tokens.index(clip().clip.eos_token_id)] for chunk in chunks]


def test_a_word_is_replaced_wherever_its_tokens_are():
    ana = word("anastyle", 3)
    assert len(ana.tokens) > 1
    assert inner("a cat, AnaStyle!", ana) == [[*clip().tokens("a cat,"), V, V + 1, V + 2, *clip().tokens("!")]]
    assert inner("a cat, anastyle!") == [clip().tokens("a cat, anastyle!")], "plain text where it is not known"
    assert inner("an astyle", ana) == [clip().tokens("an astyle")]


def test_of_two_words_that_fit_the_longer_is_taken():
    assert [
        group.ids for group in grouped([1, 2, 3, 9], [LearnedWord("a", (1,), (7,)), LearnedWord("b", (1, 2, 3), (8,))])
    ] == [
        (8,),
        (9,),
    ]


def test_comfyuis_prefix_is_read_for_known_words_alone():
    ana = word("ana", 2)
    assert inner("embedding:ana, a cat", ana) == inner("ana, a cat", ana)
    assert inner("a (embedding:Ana.safetensors:1.3) cat", ana, reading=Reading(weights=True)) == inner("a ana cat", ana)
    assert without_prefix("embedding:anatomy", ["ana"]) == "embedding:anatomy"
    assert not read("embedding:ana", LITERAL, [clip()], [[ana]]).plain


def test_all_vectors_of_a_word_have_its_weight():
    (chunk,) = read("a (ana:1.5)", Reading(weights=True), [clip()], [[word("ana", 2)]]).chunks[0]
    assert chunk.tokens[1:4] == [clip().tokens("a")[0], V, V + 1] and chunk.weights[:4] == [1, 1, 1.5, 1.5]


def test_a_word_is_never_divided_between_chunks():
    """74 words leave room for one more token: a word of two vectors begins the next chunk."""
    text = " ".join(["cat"] * 74) + " ana"
    first, second = inner(text, word("ana", 2))
    assert (len(first), second) == (74, [V, V + 1])
    assert [len(chunk) for chunk in inner(text, word("ana", 1))] == [75]


def test_what_is_read_of_a_caption_counts_the_vectors():
    text = " ".join(["cat"] * 73) + " ana dog"
    assert seen(text, Reading(tokens=75), [clip()]) == text
    assert seen(text, Reading(tokens=75), [clip()], [[word("ana", 2)]]) == text.removesuffix("dog")


@pytest.mark.parametrize(("text", "expected"), [("Ana, a cat", ["ana"]), ("banana", []), ("embedding:ana", ["ana"])])
def test_whole_words_are_named(text, expected):
    assert named(text, ["ana", "bo"]) == expected
