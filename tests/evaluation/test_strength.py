"""The range of strengths in which style and subjects hold, from what was measured at each."""

import json

from lora_studio import runs
from lora_studio.adapters.usage import Strength
from lora_studio.config.settings import Settings
from lora_studio.evaluation import strength
from lora_studio.evaluation.strength import Resampled, StrengthRow
from lora_studio.evaluation.value import Value


def row(at, style, subject=0.6):
    return StrengthRow(at, Value(style, style - 5, style + 5), Value(subject, subject - 0.05, subject + 0.05))


def find(*rows, along=None, spread=1.0):
    """Style is known to ±2 ``spread`` where it is compared, and the share of the change to ±0.02."""
    along = along or [1.0] * len(rows)
    noises = [[(index % 5 - 2) * (1 + row.strength) for index in range(100)] for row in rows]
    resampled = [
        Resampled([row.style.value + spread * one for one in noise], [share + 0.01 * one for one in noise])
        for row, share, noise in zip(rows, along, noises, strict=True)
    ]
    return strength.find(40, rows, resampled, LEVEL)


LEVEL = Value(0.45, 0.4, 0.5)


def test_it_is_where_the_style_is_best_and_subjects_have_not_faded():
    found = find(row(0.2, 20), row(0.4, 68), row(0.6, 70), row(0.8, 69), row(1.0, 90, subject=0.3), spread=5.0)
    assert (found.low, found.high, found.recommended) == (0.4, 0.8, 0.6)
    assert found.sentence == "Start at 0.6; style and subjects hold from 0.4 to 0.8, and subjects fade from 1 on."
    assert found.usage == Strength(0.6, 0.4, 0.8)


def test_a_strength_with_little_of_the_change_is_left_out_although_its_distance_is_in_doubt():
    rows = row(0.6, 60), row(0.8, 65), row(1.0, 70)
    assert find(*rows, spread=20.0).low == 0.6
    assert find(*rows, spread=20.0, along=[0.5, 0.8, 1.0]).low == 0.8


def test_an_adapter_that_only_moves_away_from_the_style_has_a_start_too():
    found = find(row(0.6, -20), row(0.8, -30), along=[-0.5, -0.8])
    assert (found.low, found.high, found.recommended) == (0.6, 0.6, 0.6)


def test_where_subjects_have_likely_faded_no_one_starts():
    """In doubt a strength is in the range, but the start is on the safe side."""
    found = find(row(0.6, 68), row(0.8, 70, subject=0.41), row(1.0, 70, subject=0.3), spread=5.0)
    assert (found.high, found.recommended) == (0.8, 0.6)
    found = find(row(0.6, 68, subject=0.41), row(0.8, 70, subject=0.41), spread=5.0)
    assert (found.low, found.high, found.recommended) == (0.6, 0.8, 0.6)


def test_that_nothing_fades_or_everything_does_is_said():
    found = find(row(0.2, 20), row(0.4, 50), row(0.6, 70))
    assert found.sentence == "Start at 0.6; style and subjects hold at 0.6, the strongest that was tried."
    found = find(row(0.2, 20, subject=0.3), row(0.4, 50, subject=0.2))
    assert found.sentence == "Start at 0.2: subjects fade at every strength from 0.2 on."


def test_what_was_measured_is_read_back_and_a_damaged_file_is_none(tmp_path):
    run = runs.create(Settings(data="x", name="ink"), tmp_path)
    found = find(row(0.2, 10), row(0.4, 50), row(0.6, 70))
    assert strength.known(run, 40) is None
    strength.write(run, found, "some key")
    again = strength.known(run, 40, "some key")
    assert again == strength.known(run, 40) and again.usage == found.usage and again.sentence == found.sentence
    assert [one.strength for one in again.rows] == [0.2, 0.4, 0.6] and again.rows[2].style == found.rows[2].style
    assert strength.known(run, 40, "another key") is None
    file = run.judged_adapter(40).with_name("strength.json")
    good = json.loads(file.read_text())
    wrong = [{"rows": [[1, ["a"], [None]]]}, {"low": 10**400}, {"high": float("nan")}, {"step": 99}, {"rows": []}]
    for text in ("{", "[]", "null", "[" * 100_000, *(json.dumps(good | change) for change in wrong)):
        file.write_text(text)
        assert strength.known(run, 40) is None
