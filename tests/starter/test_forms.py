"""The measures of the starter's evaluation, on answers whose truth is known."""

import pytest

torch = pytest.importorskip("torch")

from lora_studio.starter.make import forms  # noqa: E402

SUBJECTS = ["red-apple", "green-apple", "cat", "house", "tree", "sun", "car"]


def logits(*best):
    """Logits of pictures of which these subjects are the likeliest, the likeliest first."""
    out = torch.zeros(len(best), len(SUBJECTS))
    for row, names in zip(out, best, strict=True):
        for k, name in enumerate(names):
            row[SUBJECTS.index(name)] = 10 - k
    return out


def test_any_subject_of_that_name_is_right():
    """An apple may be green; a cat is a cat."""
    apple, cat = ({s for s in SUBJECTS if forms._shows(s, name)} for name in ("apple", "cat"))
    assert apple == {"red-apple", "green-apple"} and cat == {"cat"}
    rights = [frozenset(apple), frozenset(cat)]
    assert forms.share_right(logits(["green-apple"], ["house"]), SUBJECTS, rights) == 0.5


def test_a_pair_needs_both_among_the_five_likeliest():
    one, two = [frozenset({"cat"})] * 2, [frozenset({"car"})] * 2
    seen = logits(["cat", "sun", "tree", "house", "car"], ["cat", "sun", "tree", "house", "red-apple", "car"])
    assert forms.both_right(seen, SUBJECTS, one, two) == 0.5


def test_places_and_sizes_are_measured():
    x = torch.ones(2, 3, 128, 128)
    x[0, :, 40:80, 4:44] = -1
    x[1, :, 4:44, 40:80] = -1
    assert [forms.lopsided(x, side) for side in ("left", "right", "top")] == [0.5, 0.0, 0.5]
    assert forms.covered(x) == pytest.approx(40 * 40 / 128**2)


def test_the_subjects_are_the_common_ones_and_others_each_time_the_same():
    many = [f"thing-{k}" for k in range(60)] + SUBJECTS
    styles = dict.fromkeys(many, 6)
    found = forms.asked(many, styles, styles)
    assert [a.name for a in found[:2]] == ["apple", "cat"] and len(found) == 12 + forms.OTHERS
    assert found == forms.asked(many, styles, styles) and all(a.right for a in found[12:])


def test_forms_are_sentences():
    made = {name: form("apple", "zorp", "cat") for name, form in forms.FORMS.items()}
    assert made["plain"] == "apple" and made["unknown style"] == "a picture of an apple in zorp style"
    assert made["two"] == "two apples" and made["pair, beside"] == "an apple beside a cat"
