"""Sweep files: what they may say, and how a wrong one is told."""

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_studio.config.settings import Settings
from lora_studio.errors import SettingsError
from lora_studio.sweeps import space
from lora_studio.sweeps.space import ValueRange

GRID = {"axes": {"rank": [4, 8], "learning_rate": [1e-4, 2e-4]}}


def refused(table):
    with pytest.raises(SettingsError) as error:
        space.checked(table, "my.toml")
    return str(error.value)


def test_a_grid_takes_all_points_the_last_axis_first():
    sweep = space.checked(GRID, "my.toml")
    assert (sweep.sampler, sweep.total, sweep.prunes, sweep.seeds) == ("grid", 4, False, 1)
    assert list(sweep.points()) == [
        {"rank": 4, "learning_rate": 1e-4},
        {"rank": 4, "learning_rate": 2e-4},
        {"rank": 8, "learning_rate": 1e-4},
        {"rank": 8, "learning_rate": 2e-4},
    ]


@pytest.mark.parametrize(
    ("axis", "whole", "values"),
    [
        ({"low": 1, "high": 3, "points": 3}, True, [1, 2, 3]),
        ({"low": 4, "high": 64, "log": True, "points": 5}, True, [4, 8, 16, 32, 64]),
        ({"low": 1e-4, "high": 1e-2, "log": True, "points": 3}, False, [1e-4, 1e-3, 1e-2]),
        ({"low": 1, "high": 2, "points": 5}, True, [1, 2]),
        ({"low": 0.1, "high": 0.3, "points": 3}, False, [0.1, 0.2, 0.3]),
    ],
)
def test_a_range_on_a_grid(axis, whole, values):
    assert ValueRange(**axis).values(whole) == values


def test_trials_are_settings_over_the_preset_that_draw_no_more_than_they_must():
    table = {"preset": "quick-look", "settings": {"steps": 50}, "axes": {"rank": [4], "optimizer": ["prodigy"]}}
    sweep = space.checked(table, "my.toml")
    made = sweep.run_settings(sweep.base(data="x"), {"rank": 4, "optimizer": "prodigy"}, seed=2)
    assert isinstance(made, Settings)
    assert (made.run.data, made.run.steps, made.run.seed, made.adapter.rank) == ("x", 50, 2, 4)
    assert made.optimizer.learning_rate == 1.0, "prodigy's usual rate, and not the preset's"
    assert (made.previews.preview_every, made.dataset.validate_every, made.saving.checkpoint_every) == (0, 0, 0)
    chosen = sweep.chosen({"rank": 4, "optimizer": "prodigy"})
    assert (chosen["steps"], chosen["rank"], chosen["targets"]) == (50, 4, "attention+ff")
    assert chosen["preview_every"] == 40, "a run of one's own draws previews"


def test_a_trial_in_epochs_is_judged_at_the_steps_that_those_are():
    """Two epochs of 30 steps each; pruned, four times."""
    for prune, every in ((False, 60), (True, 15)):
        table = {"preset": "quick-look", "settings": {"epochs": 2}, "axes": {"rank": [4]}, "prune": prune}
        sweep = space.checked(table, "my.toml")
        made = sweep.run_settings(
            sweep.base(data="x"), {"rank": 4}, settled=lambda one: one.changed(epochs=2, steps=30 * one.run.epochs)
        )
        assert (made.run.epochs, made.run.steps, made.evaluation.evaluate_every) == (2, 60, every)


@pytest.mark.parametrize("sweep", space.available(), ids=lambda sweep: sweep.name)
def test_the_sweeps_that_come_with_the_studio(sweep):
    assert sweep.title and sweep.blurb.endswith(".") and sweep.preset and 2 <= sweep.total <= 40
    assert sweep.base().run.steps > 0


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({}, "my.toml varies nothing. [axes] Name at least one setting and its values under [axes], such as rank = [4"),
        (
            {"axes": {}},
            "my.toml varies nothing. [axes] Name at least one setting and its values under [axes], such as rank = [4",
        ),
        ({**GRID, "axis": 1}, "my.toml has the unknown entry 'axis'. Did you mean axes?"),
        ({"axes": {"rnk": [4]}}, "There is no setting named 'rnk'. [my.toml, axes.rnk] Did you mean rank?"),
        (
            {**GRID, "settings": {"stps": 4}},
            "There is no setting named 'stps'. [my.toml, settings] Did you mean steps?",
        ),
        (
            {**GRID, "name": "my", "settings": {"steps": 0}},
            "steps must be a whole number from 1 to 1,000,000; it is 0. [my.toml, settings] More steps",
        ),
        ({"axes": {"rank": [4, 0]}}, "rank must be a whole number from 1 to 1,024; it is 0. [my.toml, axes.rank] "),
        ({"axes": {"rank": [4, "x"]}}, "rank must be a whole number from 1 to 1,024; it is 'x'. [my.toml, axes.rank] "),
        ({"axes": {"targets": ["attention", "all"]}}, "targets must be one of: qv, attention, "),
        ({"axes": {"rank": []}}, "rank has no values. [my.toml, axes.rank] List each value once."),
        ({"axes": {"alpha": [8, 8.0]}}, "alpha has the same value twice. [my.toml, axes.alpha] List each value once."),
        (
            {"axes": {"rank": 4}},
            "axes.rank: must be a list of values, or a table with low and high. [my.toml] Fix that line.",
        ),
        (
            {"axes": {"data": ["a"]}},
            "data cannot be varied: it says where a trial is made, not how. [my.toml, axes.data] Set it under [set",
        ),
        (
            {"axes": {"preview_prompts": ["a"]}},
            "preview_prompts cannot be varied: trials are compared by what they draw, ",
        ),
        (
            {"axes": {"base": ["a", "b"]}},
            "base cannot be varied: measures of different base models have different scales. ",
        ),
        ({"axes": {"evaluation_seeds": [2, 4]}}, "evaluation_seeds cannot be varied: "),
        ({"axes": {"preview_steps": [4, 8]}}, "preview_steps cannot be varied: "),
        (
            {"axes": {"resolution": [512, 768]}},
            "resolution cannot be varied: trials would be measured against training pictures of other sizes, or "
            "against other pictures. [my.toml, axes.resolution] Set it under [settings].",
        ),
        ({"axes": {"trigger": ["a", "b"]}}, "trigger cannot be varied: the prompts that are drawn have it, "),
        ({"axes": {"quantize": ["none", "nf4"]}}, "quantize cannot be varied: the base model, "),
        ({"axes": {"protected_tags": ["a"]}}, "protected_tags cannot be varied: an axis takes single values. "),
        ({"axes": {"rank": [[4]]}}, "rank must have numbers, texts, true or false as its values. "),
        ({"axes": {"rank": {"low": 4}}}, "axes.rank.high is missing. [my.toml] Add it to that line."),
        ({"axes": {"rank": {"low": 8, "high": 4}}}, "axes.rank: low must be less than high. [my.toml] Fix that line."),
        (
            {"axes": {"alpha": {"low": 0, "high": 4, "log": True}}},
            "axes.alpha: low must be above 0 where log is true. ",
        ),
        ({"axes": {"rank": {"low": 4, "high": 8, "step": 2}}}, "my.toml has the unknown entry 'axes.rank.step'. "),
        (
            {"axes": {"rank": {"low": 4, "high": 9999, "points": 2}}},
            "rank must be a whole number from 1 to 1,024; it is 9999",
        ),
        (
            {"axes": {"rank": {"low": 4, "high": 8}}},
            "A grid does not know which values of rank to take. [my.toml, axes.rank] ",
        ),
        (
            {"axes": {"targets": {"low": 4, "high": 8}}},
            "targets is no number, so it has no low and high. [my.toml, axes.targets] ",
        ),
        (
            {**GRID, "trials": 4},
            'A grid takes all its points. [my.toml, trials] Leave trials out, or choose sampler = "random".',
        ),
        ({**GRID, "sampler": "best"}, "sampler: must be 'grid', 'random' or 'tpe'. [my.toml] Fix that line."),
        (
            {**GRID, "sampler": "tpe", "trials": 0},
            "trials: must be greater than or equal to 1. [my.toml] Fix that line.",
        ),
        (
            {**GRID, "settings": {"rank": 4}},
            "rank is under [settings] and under [axes]. [my.toml, axes.rank] Leave one of them out.",
        ),
        (
            {"axes": {"seed": [0, 1]}, "seeds": 2},
            "seed is an axis, and seeds is 2. [my.toml, seeds] Leave one of them out.",
        ),
        (
            {"axes": {"rank": {"low": 1, "high": 1024, "points": 100}, "seed": list(range(20))}},
            "The grid has 2,000 points; 1,000 are the most. [my.toml, axes] ",
        ),
        ({"axes": {"gpus": [1, 3]}}, "gpus cannot be varied: "),
        (
            {"preset": "quick-look", "settings": {"gpus": 2}, "axes": {"batch": [4, 3]}},
            "batch is 3, which 2 GPUs cannot share evenly: set batch to a multiple of gpus. That is so at batch = 3. "
            "[my.toml, axes]",
        ),
        ({**GRID, "preset": "quik-look"}, "There is no preset named 'quik-look'. [--preset] Did you mean quick-look?"),
    ],
)
def test_what_is_wrong_names_the_file_and_the_field(table, told):
    assert refused(table).startswith(told)


def test_a_file_is_found_by_its_name_or_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(tomli_w.dumps({"title": "Mine", **GRID}))
    assert space.find(str(path)) == space.read(path) == space.available(tmp_path)[0]
    assert space.read(path).name == "mine" and space.find("mine", tmp_path).title == "Mine"
    with pytest.raises(SettingsError, match=r"There is no sweep named 'learning-rat'. Did you mean learning-rate\?"):
        space.find("learning-rat")
    with pytest.raises(SettingsError, match=r"There is no such sweep file. \[gone/mine.toml\]"):
        space.find("gone/mine.toml")
    path.write_text("axes = [")
    with pytest.raises(SettingsError, match="mine.toml is not valid TOML"):
        space.find(str(path))


SCALARS = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(["lora", 4, 8.0, 1e-4])
)
KEYS = st.sampled_from(["rank", "alpha", "method", "learning_rate", "targets", "low", "high", "log", "points", "x"])
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))
RANGES = st.fixed_dictionaries({"low": SCALARS, "high": SCALARS}, optional={"log": SCALARS, "points": SCALARS})
AXES = st.dictionaries(KEYS, st.lists(SCALARS, max_size=3) | RANGES | ANYTHING, max_size=3)
TABLES = st.fixed_dictionaries(
    {"axes": AXES | ANYTHING},
    optional={
        "sampler": st.sampled_from(["grid", "random", "tpe"]) | ANYTHING,
        "trials": SCALARS,
        "seeds": SCALARS,
        "settings": st.dictionaries(KEYS, ANYTHING, max_size=2) | ANYTHING,
        "preset": SCALARS,
    },
)


@settings(max_examples=40)
@given(TABLES)
def test_any_table_is_a_sweep_or_an_error_in_plain_words(table):
    try:
        sweep = space.checked(table, "my.toml")
    except SettingsError as error:
        assert error.what and error.do is not None
    else:
        assert sweep.total >= 1
        assert space.checked(sweep.model_dump(), "my.toml") == sweep
