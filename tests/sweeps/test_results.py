"""What is concluded from trials: the best, and what cannot be told from it."""

from lora_studio.evaluation.judgements import Copy, Judgement
from lora_studio.evaluation.value import Value
from lora_studio.sweeps import results
from lora_studio.sweeps.outcome import Trial, TrialOutcome, TrialState
from tests.sweeps.conftest import outcome


def trial(number, found, state=TrialState.FINISHED):
    return Trial(number, state, {"rank": 2 * number, "learning_rate": 0.00123}, found)


def test_the_best_is_the_most_style_of_what_holds():
    trials = [
        trial(1, outcome(50)),
        trial(2, outcome(80)),
        trial(3, outcome(80.5)),
        trial(4, outcome(95, subject=0.2)),
        trial(5, outcome(95, copies=1)),
        trial(6, outcome(90), TrialState.PRUNED),
        trial(7, None, TrialState.FAILED),
    ]
    best = results.best(trials)
    assert (best.trial.number, best.alike, best.sound) == (3, (), True), "samples 1 apart never overlap in pairs"
    assert best.sentence == (
        "Trial 3 learned the most style: 80 % (between 76 and 86), with Rank 6, Learning rate 0.00123."
    )
    assert [one.number for one in results.ranked(trials)] == [3, 2, 1, 4, 5, 6, 7]


def test_trials_are_compared_in_pairs():
    """Their intervals overlap by far, but one is better in every resampling."""
    one, other = outcome(80), outcome(80.5)
    assert one.style.high > other.style.low and not results.same(one, other)
    shuffled = other.model_copy(update={"samples": other.samples[::-1]})
    assert results.same(one, shuffled)
    best = results.best([trial(1, one), trial(2, shuffled)])
    assert best.alike == (1,) and best.sentence.endswith("It cannot be told from trial 1.")


def test_where_nothing_holds_the_best_says_so():
    best = results.best([trial(1, outcome(50, subject=0.1))])
    assert not best.sound and "In no trial do all subjects hold" in best.sentence
    assert results.best([trial(1, None, TrialState.RUNNING)]) is None


def judgement(step, style, copies=()):
    value = Value(style, style - 5, style + 5)
    samples = dict.fromkeys(("style", "subject", "drift"), (style - 1, style, style + 1))
    return Judgement(step, value, Value(0.5, 0.45, 0.55), Value(0.4), Value(1.0), copies, samples)


def test_an_outcome_is_of_the_state_that_should_be_kept():
    copied = judgement(30, 90, copies=(Copy(0, 0, "a.png", 0.97),))
    found = TrialOutcome.of([judgement(10, 40), judgement(20, 80), copied])
    assert (found.step, found.style.value, found.copies, found.level) == (20, 80, 0, 0.4)
    assert TrialOutcome.model_validate_json(found.model_dump_json()) == found


def test_seeds_are_averaged():
    found = TrialOutcome.mean([outcome(70, copies=1), outcome(80, subject=0.7)])
    assert found.style.value == 75 and found.copies == 1 and found.samples[0] == 74
    assert abs(found.subject.value - 0.6) < 1e-9
    assert 73.9 < found.style.low < 74.2 and 75.8 < found.style.high < 76.1
