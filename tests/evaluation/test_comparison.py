"""Differences are paired, verdicts say no more than the intervals do, and settings are told where they differ."""

import pytest

from lora_studio.config.settings import Settings
from lora_studio.evaluation import comparison
from lora_studio.evaluation.comparison import Contestant, differing, pictures_seen, signed, told_apart, verdict
from lora_studio.evaluation.judgements import Copy, Judgement
from lora_studio.evaluation.value import Value

NOISE = [-20, -10, 0, 10, 20] * 8
"""What the prompts and seeds of 40 resamplings do to a percentage."""


def judgement(style, subject=0.6, drift=1.0, noise=NOISE, copies=()):
    values = {"style": style, "subject": subject, "drift": drift}
    samples = {name: tuple(value + one / 100 for one in noise) for name, value in values.items()}
    samples["style"] = tuple(style + one for one in noise)
    return Judgement(100, Value(style), Value(subject), Value(0.45), Value(drift), copies, samples, drawn=24)


def one(name, *judgements, place=0):
    return Contestant(name, place, judgements)


def test_what_both_share_cancels_in_the_difference():
    """Each interval is 40 wide and they overlap; the difference is 5 whatever was resampled."""
    a, b = one("a", judgement(60)), one("b", judgement(65))
    assert a.value("style") == (60, 40, 80)
    assert b.difference(a, "style") == (5, 5, 5)
    assert told_apart(b.difference(a, "style"))


def test_the_interval_is_that_of_the_differences():
    """Half of b's noise: the difference has the other half, from -10 to 10."""
    a, b = one("a", judgement(60)), one("b", judgement(65, noise=[each / 2 for each in NOISE]))
    assert b.difference(a, "style") == (5, -5, 15)
    assert not told_apart(b.difference(a, "style"))


def test_training_seeds_widen_the_interval_of_a_group():
    """Two runs 10 apart, without noise of prompts: the standard error of their mean is 5, not the 3.5 of a bootstrap
    that draws both.
    """
    still = [0] * 1000
    group = one("a, b", judgement(50, noise=still), judgement(60, noise=still))
    assert group.value("style") == pytest.approx((55, 50, 60), abs=0.5)
    assert group.samples("style").std() == pytest.approx(5, abs=0.1)
    alone = one("c", judgement(55, noise=still), place=1)
    assert alone.difference(group, "style") == pytest.approx((0, -5, 5), abs=0.5)


def test_groups_draw_their_runs_independently():
    still = [0] * 1000
    runs = judgement(50, noise=still), judgement(60, noise=still)
    a, b = one("a", *runs), one("b", *runs, place=1)
    assert b.difference(a, "style") == pytest.approx((0, -10, 10), abs=0.5)


def test_a_group_fades_and_copies_by_all_its_runs():
    copied = judgement(50, copies=(Copy(0, 0, "x.png", 0.95),))
    group = one("a, b", copied, judgement(50))
    assert group.copies == 1 and not group.fades
    assert one("a", judgement(50, subject=0.2, noise=[0] * 10)).fades
    assert not one("a", judgement(50, subject=0.3)).fades  # 0.5 is still possible


def test_a_further_column_is_compared_as_any_measure():
    from dataclasses import replace

    def with_text(value):
        made = judgement(50)
        extra = {"clip text": Value(value)}
        return replace(made, extra=extra, samples={**made.samples, "clip text": (value - 1, value, value + 1)})

    a, b = one("a", with_text(3)), one("b", with_text(4))
    assert a.measures == ["style", "subject", "drift", "clip text"]
    assert b.difference(a, "clip text") == (1, 1, 1)
    assert one("c", with_text(3), judgement(50)).measures == ["style", "subject", "drift"]


ALIKE = one("b", judgement(65, noise=[each / 2 for each in NOISE]))
MORE, FADED = one("b", judgement(80)), one("b", judgement(80, subject=0.1))


@pytest.mark.parametrize("other, shared, said", [
    (ALIKE, True, "The styles of a and b cannot be told apart (+5 [−5, +15] points). Subjects hold in both. The "
     "measures do not settle which to keep: look at the sheet."),
    (MORE, True, "b has more of the style than a (+20 [+20, +20] points). Subjects hold in both. By these measures b "
     "is the one to keep."),
    (FADED, True, "b has more of the style than a (+20 [+20, +20] points). Subjects fade in b. b shows its prompts "
     "less clearly (−0.50 [−0.50, −0.50]). b has more of the style, and a keeps to its prompts: choose."),
    (one("b", judgement(60, subject=0.55)), True, "The styles of a and b cannot be told apart (+0 [+0, +0] points). "
     "Subjects hold in both. b shows its prompts less clearly (−0.05 [−0.05, −0.05]). The measures do not settle "
     "which to keep: look at the sheet."),
    (one("b", judgement(60, subject=0.1)), True, "The styles of a and b cannot be told apart (+0 [+0, +0] points). "
     "Subjects fade in b. b shows its prompts less clearly (−0.50 [−0.50, −0.50]). By these measures a is the one to "
     "keep."),
    (one("b", judgement(40)), True, "b has less of the style than a (−20 [−20, −20] points). Subjects hold in both. "
     "By these measures a is the one to keep."),
    (one("b", judgement(60, drift=1.5)), True, "The styles of a and b cannot be told apart (+0 [+0, +0] points). "
     "Subjects hold in both. b changes prompts without the trigger word more (+0.50 [+0.50, +0.50]). The measures do "
     "not settle which to keep: look at the sheet."),
    (one("b", judgement(80, copies=(Copy(0, 0, "x.png", 0.95),))), True, "b has more of the style than a (+20 [+20, "
     "+20] points). Subjects hold in both. b: 1 of 24 pictures of new prompts may be copies. b has more of the style, "
     "but may have copied: look at its pictures."),
    (MORE, False, "b learned more of its own pictures' style than a of its own (+20 [+20, +20] points). Subjects "
     "hold in both."),
    (ALIKE, False, "How much a and b learned of their own pictures' styles cannot be told apart (+5 [−5, +15] "
     "points). Subjects hold in both."),
])  # fmt: skip
def test_a_verdict_says_what_the_intervals_do(other, shared, said):
    assert verdict(one("a", judgement(60)), other, shared) == said


def test_differences_have_signs():
    assert signed(Value(-0.04, -0.1, 0.02), ".2f") == "−0.04 [−0.10, +0.02]"


def test_only_settings_that_differ_are_told():
    first = Settings(name="a", rank=8, flip=True, seed=1)
    other = first.changed(name="b", rank=16, flip=False)
    rows = differing([[first, first.changed(seed=2)], [other]])
    assert rows == {"seed": ("1, 2", "1"), "rank": ("8", "16"), "flip": ("on", "off")}
    assert differing([[first], [first.changed(name="c")]]) == {}


def test_pictures_seen_count_batches_and_accumulation():
    assert pictures_seen(Settings(batch=4, accumulate=3), 10) == 120
    assert comparison.pictures_seen(Settings(batch=1), 7) == 7
