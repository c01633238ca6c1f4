"""Weights and BREAK in prompts: the cases that A1111's own documentation and tests of its parser give, and any text."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.texts.prompts import Part, parse, taken, unknown


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("", [("", 1)]),
        ("a red cat, ink", [("a red cat, ink", 1)]),
        ("an (important) word", [("an ", 1), ("important", 1.1), (" word", 1)]),
        ("(a:1.2)", [("a", 1.2)]),
        ("(a: 1.2 )", [("a", 1.2)]),
        ("(a:-.5)", [("a", -0.5)]),
        ("(a:0)", [("a", 0)]),
        ("[a]", [("a", 1 / 1.1)]),
        ("((a))", [("a", 1.1 * 1.1)]),
        ("([a])", [("a", 1.1 * (1 / 1.1))]),
        ("((a):1.5)", [("a", 1.1 * 1.5)]),
        ("(b (c:2) d:0.5)", [("b ", 0.5), ("c", 1.0), (" d", 0.5)]),
        (r"\(literal\] \[all\)", [("(literal] [all)", 1)]),
        (r"knight \(a game\)", [("knight (a game)", 1)]),
        (r"(\(a\))", [("(a)", 1.1)]),
        (r"a\\b\c", [(r"a\bc", 1)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        ("[un(balanced", [("un", 1 / 1.1), ("balanced", 1.1 * (1 / 1.1))]),
        ("unnecessary)(parens", [("unnecessary)", 1), ("parens", 1.1)]),
        ("a] b)", [("a] b)", 1)]),
        ("a:1.2)", [("a:1.2)", 1)]),
        ("[a:1.2]", [("a:1.2", 1 / 1.1)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("a: b", [("a: b", 1)]),
        ("((word)", [("word", 1.1 * 1.1)]),
    ],
)
def test_known_prompts(prompt, parts):
    found = parse(prompt)
    assert [part.text for part in found] == [text for text, _ in parts]
    assert [part.weight for part in found] == pytest.approx([weight for _, weight in parts])
    assert not any(part.begins for part in found)


def test_break_begins_a_chunk():
    assert parse("a cat BREAK a dog") == [Part("a cat"), Part("a dog", begins=True)]
    assert parse("(a BREAK b:2)") == [Part("a", 2.0), Part("b", 2.0, begins=True)]
    assert parse("BREAK") == [Part(""), Part("", begins=True)]
    assert parse("BREAKFAST, break") == [Part("BREAKFAST, break")]


def test_white_space_around_break_goes_and_no_other():
    assert parse(" a\n BREAK \t BREAK  b  ") == [Part(" a"), Part("", begins=True), Part("b  ", begins=True)]


@pytest.mark.parametrize(
    "hostile",
    [
        *("a" + " " * 100_000 + "b", "<lora:a:" + "1" * 100_000, "<lora:a" + " " * 100_000 + "b"),
        *("(a:" + "1" * 100_000, "(a:" * 30_000),
    ],
    ids=["spaces", "weight", "name", "number", "brackets"],
)
def test_the_time_that_a_text_takes_grows_with_its_length_alone(hostile):
    """A picture from elsewhere holds such a prompt: it took minutes, in which the whole studio stood still."""
    began = time.process_time()
    assert parse(hostile) and taken(hostile) == (hostile, [])
    assert time.process_time() - began < 5


def test_brackets_that_are_never_closed_reach_to_the_end():
    assert [(part.text, part.weight) for part in parse("a (b [c (d")] == [
        ("a ", 1.0),
        ("b ", pytest.approx(1.1)),
        ("c ", pytest.approx(1.0)),
        ("d", pytest.approx(1.1)),
    ]


def test_the_example_of_the_reference():
    """A nested prompt whose weights A1111's parser states in its own words."""
    found = parse("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).")
    assert [part.text for part in found] == ["a ", "house", " ", "on", " a ", "hill", ", sun, ", "sky", "."]
    expected = [1.0, 1.573, 1.1, 1.0, 1.1, 0.55, 1.1, 1.4641, 1.1]
    assert [part.weight for part in found] == pytest.approx(expected, abs=1e-4)


@given(st.text() | st.lists(st.sampled_from([*"ab ()[]:\\.12+-,\n\U0001f600", "BREAK"])).map("".join))
def test_any_text_is_read(prompt):
    found = parse(prompt)
    assert found and all(isinstance(part.weight, float) for part in found)


@given(st.text().filter(lambda text: not set(text) & set("()[]\\") and "BREAK" not in text))
def test_text_without_marks_is_kept(prompt):
    assert parse(prompt) == [Part(prompt)]


@given(st.text())
def test_escaped_text_is_kept(prompt):
    """Every bracket escaped: the words come back as they are, with weight 1."""
    written = "".join(f"\\{letter}" if letter in "()[]\\" else letter for letter in prompt)
    if "BREAK" not in prompt:
        assert parse(written) == [Part(prompt)]


@pytest.mark.parametrize(
    ("prompts", "named", "do"),
    [
        (["a <lora:ink:0.8> cat", "<lora:ink:0.8>"], "<lora:ink:0.8>", "--adapter FILE:WEIGHT"),
        (["a cat AND a dog"], "AND", "a comma instead of AND"),
        (["<lyco:b:1> AND <hypernet:c:1>"], "<lyco:b:1>, <hypernet:c:1>, AND", "--adapter"),
    ],
)
def test_what_only_a1111_reads_as_more_than_words_is_named_once(prompts, named, do):
    (notice,) = unknown(prompts)
    assert notice.what == f"In prompts the studio reads {named} as plain words, unlike A1111." and do in notice.do
    assert unknown(["a cat and a dog", "SAND", "(a:1.2) < b > BREAK [c]"]) == []


@pytest.mark.parametrize(("prompt", "rest", "named"), [
    ("a cat", "a cat", []),
    (" a cat ", " a cat ", []),
    ("<lora:ink:0.8>a cat", "a cat", [("ink", 0.8)]),
    ("a cat <lora:ink> <lyco:gold leaf:-.5>", "a cat", [("ink", 1.0), ("gold leaf", -0.5)]),
    ("a <lora:ink:1>cat<lora:ink:0.2>", "a cat", [("ink", 1.0), ("ink", 0.2)]),
    ("(a cat <lora:v1.5 (final): 1. >:1.2)", "(a cat :1.2)", [("v1.5 (final)", 1.0)]),
    ("<lora:ink:0.8:0.5> <lora:ink:high> <lora::1> <hypernet:ink:1> <lora:ink",) * 2 + ([],),
])  # fmt: skip
def test_adapters_are_taken_out_of_a_prompt(prompt, rest, named):
    """A weight for the text encoder alone counts for all; or a tag vanishes that was not understood."""
    assert taken(prompt) == (rest, named)
