"""The Sweeps page: what is drawn is what was measured, and every press does what it says."""

import re
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from lora_studio.config.specs import SPECS
from lora_studio.errors import RunError
from lora_studio.evaluation.value import Value
from lora_studio.events import State, StateChanged
from lora_studio.jobs import sweeping
from lora_studio.jobs.eventlog import EventLog
from lora_studio.jobs.sweeping import SweepingJob
from lora_studio.sweeps import results, space, study
from lora_studio.sweeps.outcome import Trial, TrialState
from lora_studio.ui.pages.sweeps import charts, page, status, table
from lora_studio.ui.pages.sweeps.page import SweepsPage, SweepsTab
from lora_studio.ui.pages.train.setup import Setup
from tests.sweeps.conftest import outcome

TABLE = {"axes": {"rank": [4, 8], "targets": ["attention", "attention+ff"]}, "preset": "quick-look", "name": "two"}


@pytest.fixture
def sweep():
    return space.checked(TABLE, "two.toml")


@pytest.fixture
def trials(sweep):
    points = list(sweep.points())
    return [
        Trial(1, TrialState.FINISHED, points[0], outcome(40), 20),
        Trial(2, TrialState.FINISHED, points[1], outcome(60), 22),
        Trial(3, TrialState.PRUNED, points[2], outcome(50, subject=0.1), 5),
        Trial(4, TrialState.FAILED, points[3], error="<b>No memory.</b>"),
    ]


def test_lines_run_from_the_values_to_the_style(sweep, trials):
    drawn = charts.parallel(sweep, trials, chosen=2)
    lines = re.findall(r'class="(trial[^"]*)" d="M([^"]*)"', drawn)
    assert [kind for kind, _ in lines] == ["trial", "trial faded", "trial best"], "the chosen one is on top"
    points = [tuple(map(float, point.split())) for point in lines[2][1].split("L")]
    assert [x for x, _ in points] == [0, 500, 1000]
    assert [y for _, y in points] == [960, 40, 40], "rank 4 lies low, more layers and most of the style high"
    assert "Rank" in drawn and "Attention and feed-forward" in drawn


def test_the_response_shows_every_interval_and_the_means(sweep, trials):
    drawn = charts.response(sweep, trials, "rank", chosen=2)
    whiskers = re.findall(r'class="whisker trial[^"]*" d="M(\S+) (\S+)V(\S+)"', drawn)
    assert len(whiskers) == 3 and all(float(bottom) > float(top) for _, bottom, top in whiskers)
    first, second, other = (float(x) for x, _, _ in whiskers)
    assert 0 < second - first < 20 and other > 900, "two trials of rank 4 lie side by side"
    (mean,) = re.findall(r'class="mean" d="M([^"]*)"', drawn)
    heights = [float(point.split()[1]) for point in mean.split("L")]
    assert heights[0] == pytest.approx(heights[1], abs=0.5), "both means are 50 %"
    assert charts.response(sweep, [], "rank") == charts.parallel(sweep, []) == ""


@pytest.mark.parametrize(
    ("axis", "places"),
    [
        ([4, 8, 16], [0, 0.5, 1]),
        ([10, 20, 30], [0, 0.5, 1]),
        ({"low": 1, "high": 100, "log": True, "points": 3}, [0, 0.5, 1]),
    ],
)
def test_axes_are_drawn_by_size_or_by_factors(axis, places):
    sweep = space.checked({"axes": {"rank": axis}}, "a.toml")
    scale = charts.AxisScale(sweep, "rank")
    assert [scale.place(value) for value in sweep.values("rank")] == pytest.approx(places)


def test_axes_that_are_drawn_from_have_round_marks():
    sweep = space.checked({"axes": {"rank": {"low": 4, "high": 64, "log": True}}, "sampler": "random"}, "a.toml")
    places, labels = zip(*charts.AxisScale(sweep, "rank").marks(), strict=True)
    assert places == pytest.approx([0, 0.5, 1]) and labels == ("4", "16", "64")


def test_the_table_marks_what_cannot_be_told_from_the_best(sweep, trials):
    best = results.best(trials)
    drawn = table.html(sweep, trials, best, 1)
    rows = re.findall(r"<tr( class=\"[^\"]*\")?><th scope=\"row\">", drawn)
    assert rows == [' class="alike"', ' class="chosen"', "", ""]
    assert "60 % [55, 65]" in drawn and "fell behind" in drawn and "0.10, fading" in drawn
    assert "&lt;b&gt;No memory." in drawn and "<b>No memory" not in drawn
    assert 'data-trial="4"' not in drawn, "a trial that measured nothing cannot be chosen"


def test_the_table_has_minus_signs_and_tells_no_interval_wider_than_the_scale(sweep, trials):
    """A hyphen is read as a dash; [−160, 90] says nothing."""
    wide = trials[0].outcome.model_copy(
        update={"style": Value(-30.0, -160.0, 90.0), "subject": Value(-0.05, -0.1, 0.3)}
    )
    narrow = wide.model_copy(update={"style": Value(-4.0, -9.0, 1.0)})
    shown = [trials[0]._replace(outcome=wide), trials[1]._replace(outcome=narrow)]
    drawn = table.html(sweep, shown, results.best(shown), None)
    assert "<td>−30 %, too few prompts to tell</td><td>−0.05" in drawn and "<td>−4 % [−9, 1]</td>" in drawn
    assert "no bar: too few prompts to tell" in charts.response(sweep, shown, "rank")
    assert charts.response(sweep, shown, "rank").count("whisker") == 1


def test_the_table_has_what_trials_cost_where_they_train_different_numbers_of_parameters(sweep, trials):
    """As those of several methods do; one that ended before that was kept stays without."""
    assert "Trained parameters" not in table.html(sweep, trials, None, None)
    costs = [{"parameters": 458_752, "size": 1_900_000}, {}]
    shown = [
        trial._replace(outcome=trial.outcome.model_copy(update=cost))
        for trial, cost in zip(trials, costs, strict=False)
    ]
    drawn = table.html(sweep, shown, None, None)
    assert "<td>458,752</td><td>1.9 MB</td>" in drawn and drawn.count("<td></td><td></td>") == 1


@pytest.fixture
def opened(tmp_path, sweep, trials, monkeypatch):
    """The page with a study of four trials, and what pressing Start would start."""
    data = tmp_path / "drawings"
    data.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64), (50 * number, 9, 9)).save(data / f"{number}.png")
    outputs, started = tmp_path / "outputs", []
    made = study.begin(sweep, sweep.base(data=str(data)), outputs)
    made.note(trials)
    EventLog(SweepingJob(made.folder).events_file).append(StateChanged(state=State.RUNNING))  # killed at its end
    monkeypatch.setattr(sweeping, "start", lambda one: started.append(one))
    with gr.Blocks():
        tabs = gr.Tabs()
        setup = Setup(outputs)
        shown = SweepsPage(outputs, setup)
    form = [setup.form.start.get(key, SPECS[key].default) for key in page._FROM_THE_FORM]
    form[0] = str(data)
    return SimpleNamespace(page=shown, setup=setup, tabs=tabs, study=made, started=started, form=form, outputs=outputs)


def test_the_latest_study_is_shown_with_its_best_trial(opened):
    here = SweepsTab()
    drawn = opened.page.tick(here)
    assert (here.study, here.trial, here.axis) == ("two-drawings", 2, "rank")
    assert "Trial 2 learned the most style: 60 %" in drawn[opened.page.finding]
    assert "Finished: 4 of 4 trials." in drawn[opened.page.state]
    assert opened.page.tick(here) == {opened.page.tab: here}, "nothing is drawn again while nothing happens"
    chosen = opened.page.choose(here, SimpleNamespace(act="choose", trial="1"))
    assert here.trial == 1 and "Trial 1</h3>" in chosen[opened.page.chosen]


def test_the_settings_of_a_trial_fill_the_form(opened):
    here = SweepsTab(trial=2)
    opened.page.look(here)
    filled = opened.page.used(here, opened.tabs)
    fields = opened.setup.form.fields
    assert filled[fields["rank"]]["value"] == "4" and filled[fields["targets"]]["value"] == "attention+ff"
    assert filled[fields["preview_every"]]["value"] == "40" and fields["data"] not in filled
    assert filled[opened.tabs]["selected"] == "train"


def test_a_sweep_is_started_with_the_pictures_of_the_form(opened):
    here = SweepsTab()
    updates = opened.page.begin(here, "learning-rate", *opened.form)
    assert updates[opened.page.notice]["visible"] is False, updates
    (made,) = opened.started
    assert made.name == here.study == "learning-rate-drawings" and made.sweep.total == 6
    assert made.settings().run.data == opened.form[0]
    described = opened.page.describe("learning-rate", *opened.form)
    assert "6 trials, 2 training seeds each" in described[opened.page.about]
    assert "<b>drawings</b>" in described[opened.page.source]


def test_what_cannot_be_done_is_said(opened, tmp_path):
    here = SweepsTab(trial=2)
    opened.page.look(here)
    refused = opened.page.kept(here)
    assert "Trial 2 of two-drawings has no adapter here." in refused["value"]
    missing = [str(tmp_path / "missing"), *opened.form[1:]]
    assert "missing" in opened.page.begin(here, "learning-rate", *missing)[opened.page.notice]["value"]
    with pytest.raises(RunError):
        study.find("nothing", opened.outputs)


def test_the_time_is_estimated_from_earlier_trials(opened):
    rates = space.find("learning-rate")
    assert status.pace(opened.outputs, "starter", rates) == pytest.approx(21 / 160)
    assert status.pace(opened.outputs, "other", rates) is None
    short = space.checked({**TABLE, "settings": {"steps": 10}}, "two.toml")
    assert status.pace(opened.outputs, "starter", short) is None, "judging would count sixteen times"
    told = status.about(space.find("steps"), 21 / 160)
    assert "5 trials: every combination. About 5 minutes on this machine." in told
