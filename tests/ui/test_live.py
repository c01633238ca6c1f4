"""The live half without a browser: what a tick sends, and that it sends nothing twice."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from safetensors.numpy import save_file

from lora_studio import adapters
from lora_studio import events as e
from lora_studio.adapters import Adapter, usage
from lora_studio.adapters.usage import Strength
from lora_studio.config import presets
from lora_studio.events import State
from lora_studio.jobs import control, runner
from lora_studio.jobs.captioning import CaptioningJob
from lora_studio.jobs.control import Request
from lora_studio.jobs.judging import JudgingJob
from lora_studio.jobs.sweeping import SweepingJob
from lora_studio.jobs.view import fold
from lora_studio.runs import checkpoints, renaming
from lora_studio.ui.pages.train import page, previews, status, warned
from lora_studio.ui.pages.train.live import RunWatcher, TabState, tick
from lora_studio.ui.pages.train.page import EVERY, _apply_and_resume, _resume
from tests.adapters.adapter_samples import factors
from tests.dataset.made import style_folder
from tests.ui.played import save


@pytest.fixture
def watcher(tmp_path):
    return RunWatcher(tmp_path)


@pytest.fixture
def started(monkeypatch):
    """The names of runs that were to start; none does."""
    names = []
    monkeypatch.setattr("lora_studio.jobs.runner.start", lambda run: names.append(run.name))
    return names


def test_an_empty_outputs_folder_says_what_to_do(watcher):
    """A new user sees an empty half page."""
    sent = tick(TabState(), watcher)
    assert sent["blank"]["visible"] and not sent["run_card"]["visible"] and sent["start"]["interactive"]


def test_what_the_base_model_predicts_is_shown_with_its_reason(part):
    played = part("one")
    played.begins()
    played.says(e.BaseLoaded(name="ink <b>", family="SDXL", predicts="Velocity (v)", reason="the file's mark v_pred"))
    shown = status.line(played.run, fold(played.run))
    assert "ink &lt;b&gt; predicts: Velocity (v) – the file&#x27;s mark v_pred" in shown
    played.says(e.BaseLoaded(name="starter", family="the built-in starter", predicts="Velocity (v)", reason="its own"))
    assert "predicts" not in status.line(played.run, fold(played.run))


def test_a_tick_sends_nothing_twice(watcher, part):
    """Everything is drawn anew every two seconds, and the user's scroll and slider jump."""
    played, tab = part("one"), TabState()
    played.begins()
    played.trains(1, 5)
    assert {"state", "loss", "film", "runs"} <= set(tick(tab, watcher))
    assert tick(tab, watcher) == {}
    played.trains(6, 6)
    assert set(tick(tab, watcher)) == {"pill", "said", "state", "loss"}


def test_judging_while_training_is_said(part):
    """It draws pictures for minutes, and the page says that previews are drawn, or shows the same step."""
    played = part("one")
    played.begins()
    base = e.Preparing(stage="drawing the base model's pictures for judging", done=1, total=3)
    played.says(e.StateChanged(state=State.PREPARING), base)
    assert "drawing the base model&#x27;s pictures for judging, 1 of 3" in status.line(played.run, fold(played.run))
    played.says(e.StateChanged(state=State.RUNNING))
    played.trains(1, 40)
    played.says(e.Preparing(stage="judging this state", done=0, total=1))
    assert "step 40 of 100 · judging this state." in status.line(played.run, fold(played.run))
    played.trains(41, 41)
    assert "judging" not in status.line(played.run, fold(played.run))


@pytest.mark.fault(52)
def test_two_tabs_are_sent_the_same(watcher, part):
    """One tab steals the other's updates."""
    played, one, other = part("one"), TabState(), TabState()
    played.begins()
    assert tick(one, watcher) == tick(other, watcher)
    played.trains(1, 3)
    assert tick(one, watcher) == tick(other, watcher) != {}


@pytest.mark.fault(52, 55)
def test_a_run_started_elsewhere_is_shown_and_an_earlier_one_stays_chosen(watcher, part):
    """The second tab stays with the old run; or an earlier run cannot be looked at while another trains."""
    part("one").begins()
    tab = TabState()
    assert tick(tab, watcher)["runs"]["value"] == "<h2>one</h2>"
    part("two").begins()
    assert tick(tab, watcher)["runs"]["value"] == "<h2>two</h2>"
    tab.show("one")
    assert tick(tab, watcher)["runs"]["value"] == "<h2>one</h2>"
    assert tick(tab, watcher) == {} and tab.run == "one"


def test_a_run_that_ends_by_itself_finishes_and_one_that_is_stopped_stops(watcher, part):
    """She reads that it stops, and asks herself who stopped it."""
    played = part("one")
    played.begins(total=4)
    played.trains(1, 3)
    played.says(e.StateChanged(state=State.STOPPING))
    sent = tick(tab := TabState(), watcher)
    assert "<b>Stopping</b>" in sent["state"]["value"] and "· stopping</span>" in sent["pill"]["value"]
    played.says(e.StateChanged(state=State.RUNNING))
    played.trains(4, 4)
    played.says(e.StateChanged(state=State.STOPPING))
    sent = tick(tab, watcher)
    assert "<b>Finishing</b>" in sent["state"]["value"] and "· finishing</span>" in sent["pill"]["value"]


def test_the_bar_says_that_a_run_starts_as_its_card_does(watcher, part):
    """The bar says that it waits, and nothing is before it."""
    played = part("one")
    played.lives()
    sent = tick(TabState(), watcher)
    assert "<b>Starting</b>" in sent["state"]["value"] and "· starting</span>" in sent["pill"]["value"]


@pytest.mark.fault(38)
@pytest.mark.parametrize("stopping", [False, True])
def test_a_killed_worker_is_seen(watcher, part, stopping):
    """The page says "training" for ever, or waits for a worker that is gone to stop, so that nothing can be resumed."""
    played, tab = part("one"), TabState()
    played.begins()
    played.trains(1, 3)
    if stopping:
        control.ask(played.run, Request.STOP)
    tick(tab, watcher)
    played.dies()
    sent = tick(tab, watcher)
    assert "Interrupted" in sent["state"]["value"] and sent["resume"] == gr.update(
        visible=True, value="Start again", interactive=True, variant="primary"
    )
    assert sent["start"]["interactive"] and not sent["pause"]["visible"]
    assert EVERY < 3, "the next tick comes that soon, and shows it"


@pytest.mark.parametrize(("state", "buttons"), [
    (State.QUEUED, {"stop"}),
    (State.PREPARING, {"stop"}),
    (State.RUNNING, {"pause", "stop", "preview"}),
    (State.PAUSED, {"resume", "stop"}),
    (State.STOPPING, set()),
])  # fmt: skip
def test_each_state_offers_what_it_can_do(watcher, part, state, buttons):
    """A button is offered that the worker ignores."""
    played, tab = part("one"), TabState()
    played.lives()
    played.says(e.StateChanged(state=state))
    sent = tick(tab, watcher)
    assert {name for name in ("pause", "resume", "apply", "stop", "preview") if sent[name]["visible"]} == buttons


def test_waiting_runs_are_seen_with_their_place_and_can_leave(watcher, part):
    """A queue that nobody sees: the user thinks that the second run was lost, or cannot get rid of it."""
    first, second, tab = part("a first"), part("b second"), TabState()
    first.begins()
    second.lives()
    second.says(e.StateChanged(state=State.QUEUED))
    tab.show("b-second")
    tab.newest = "b-second"
    sent = tick(tab, watcher)
    assert (
        "Waiting" in sent["state"]["value"] and "for a-first to end. It starts automatically." in sent["state"]["value"]
    )
    assert sent["stop"] == gr.update(visible=True, interactive=True, value="Leave the queue")
    assert (
        sent["start"] == gr.update(value="Queue after a-first and 1 more", interactive=True, visible=True)
        and "1 waiting" in sent["pill"]["value"]
    )
    second.says(e.StateChanged(state=State.INTERRUPTED))
    sent = tick(tab, watcher)
    assert "<b>Taken out of the queue</b> <span>before its turn." in sent["state"]["value"]
    assert "lost power" not in sent["state"]["value"] and "nterrupted" not in sent["state"]["value"]
    assert sent["resume"]["value"] == "Start"


def test_a_run_that_was_stopped_before_its_first_step_is_no_accident(watcher, part):
    run, tab = part("ink"), TabState()
    run.begins()
    tab.show("ink")
    tick(tab, watcher)
    run.says(e.StateChanged(state=State.INTERRUPTED, asked=True))
    run.dies()
    sent = tick(tab, watcher)
    assert "<b>Stopped</b> <span>before the first step." in sent["state"]["value"]
    assert "lost power" not in sent["state"]["value"] and sent["resume"]["value"] == "Start"


@pytest.mark.parametrize(("kind", "folder", "told"), [
    (JudgingJob, "one/evaluation/job", ("#run/one", "one", "judging", "the judging of one")),
    (CaptioningJob, ".captioning/ink", ("#pictures", "ink", "captioning", "the captioning of ink")),
    (SweepingJob, ".sweeps/two", ("#sweeps", "two", "sweep", "the sweep two")),
])  # fmt: skip
def test_a_job_at_work_is_named_in_the_header_and_on_the_button(watcher, part, tmp_path, kind, folder, told):
    """ "Start training" is pressed, and the run waits; nobody knows for what, or where that can be seen."""
    address, name, noun, title = told
    part("one").says(e.StateChanged(state=State.INTERRUPTED))
    job, tab = kind(tmp_path / folder), TabState()
    job.folder.mkdir(parents=True)
    assert tick(tab, watcher)["start"]["value"] == "Start training"
    job.register(os.getpid())
    later = part("later")
    runner.register_worker(later.run, os.getpid())
    later.says(e.StateChanged(state=State.QUEUED))
    sent = tick(tab, watcher)
    shown = sent["pill"]["value"]
    assert f'href="{address}"' in shown and f">{name}<" in shown and f" · {noun}<" in shown and " · 1 waiting" in shown
    assert sent["start"]["value"] == f"Queue after {title} and 1 more"
    job.worker_file.unlink()
    assert 'href="#run/later"' in tick(tab, watcher)["pill"]["value"]


@pytest.mark.fault(36, 37)
def test_the_setting_that_would_fit_is_one_press_away(watcher, part, started):
    """The advice has to be read, understood, found among fifty fields and typed."""
    played, tab = part("one", batch=4), TabState()
    played.begins()
    played.says(
        e.Failed(
            what="The memory of the GPU is full.",
            where="batch",
            do="Set batch to 2.",
            changes={"batch": 2, "accumulate": 2},
        )
    )
    played.dies()
    save(played.run, 250)
    sent = tick(tab, watcher)
    assert (
        "memory of the GPU is full" in sent["state"]["value"]
        and sent["apply"]["value"] == "Resume with batch size 2 and gradient accumulation 2"
    )
    _apply_and_resume(tab, played.run)
    assert started == ["one"] and (
        played.run.settings().optimizer.batch,
        played.run.settings().optimizer.accumulate,
    ) == (2, 2)
    played.says(e.Failed(what="Full.", changes={"optimizer": "adamw8bit"}))
    _apply_and_resume(tab, played.run)
    assert started == ["one", "one-from-250"] and tab.run == "one-from-250"


@pytest.mark.fault(46)
def test_a_changed_run_resumes_at_the_second_press(watcher, part, started, tmp_path):
    """Its settings were edited, or its pictures: the user is told, and asked."""
    played, tab = part("one", data=str(tmp_path)), TabState()
    played.begins()
    save(played.run, 250)
    played.dies()
    presets.save_settings(played.run.settings().changed(learning_rate=0.01), played.run.settings_file)
    tab.follow(["one"])
    _resume(tab, played.run)
    sent = tick(tab, watcher)
    assert (
        not started
        and "Learning rate was 0.0003 and is now 0.01." in sent["state"]["value"]
        and sent["resume"]["value"] == "Resume anyway"
    )
    _resume(tab, played.run)
    assert started == ["one"] and not tab.unconfirmed


def test_a_press_that_is_refused_says_why(watcher, part, started, tmp_path):
    """Resume is pressed, and nothing is seen."""
    played, tab = part("one", data=str(tmp_path / "gone")), TabState()
    played.begins()
    save(played.run, 250)
    played.dies()
    tab.follow(["one"])
    shown = page._acting(_resume, watcher, lambda tab: tick(tab, watcher))(tab)["state"]["value"]
    assert not started and f"There is no folder {tmp_path / 'gone'}" in shown and "resume one --data FOLDER" in shown
    assert "state" not in tick(tab, watcher), "it stays"
    played.says(e.Failed(what="Full."))
    assert "There is no folder" not in tick(tab, watcher)["state"]["value"]


@pytest.mark.fault(92)
def test_a_run_whose_pictures_moved_is_resumed_from_the_page(watcher, part, started, tmp_path):
    """A wrong place is refused as the old one was. Another run asks for no place."""
    played, tab = part("one", data=str(tmp_path / "gone")), TabState()
    played.begins()
    save(played.run, 250)
    played.dies()
    tab.follow(["one"])
    resume = page._acting(_resume, watcher, lambda tab: tick(tab, watcher))
    place = resume(tab)["place"]
    assert place["visible"] and place["label"] == "Where the pictures are now"
    page._note_place(tab, str(tmp_path / "nowhere"))
    assert f"There is no folder {tmp_path / 'nowhere'}" in resume(tab)["state"]["value"] and not started
    page._note_place(tab, " ")
    moved = style_folder(tmp_path / "moved")
    page._note_place(tab, f" {moved} ")
    shown = resume(tab)
    assert started == ["one"] and played.run.settings().run.data == str(moved)
    assert not shown["place"]["visible"] and tab.moved == {} and tab.lost == ""


def test_saved_states_are_listed_with_their_stars(watcher, part):
    played, tab = part("one"), TabState()
    played.begins()
    assert not tick(tab, watcher)["states_card"]["visible"]
    save(played.run, 250, 500)
    html = tick(tab, watcher)["states"]["value"]
    assert html.index("step 500") < html.index("step 250") and html.count('data-act="star"') == 2
    checkpoints.star(played.run, 250)
    assert 'data-act="unstar" data-step="250"' in tick(tab, watcher)["states"]["value"]


@pytest.mark.fault(35, 50)
def test_rollbacks_and_warnings_are_shown(watcher, part):
    """Training continues after a failed preview or a loss that was NaN, and nobody learns why the preview is missing or
    the rate is lower.
    """
    played, tab = part("one"), TabState()
    played.begins()
    played.trains(1, 5)
    played.says(
        e.RolledBack(
            step=3,
            failed_step=6,
            factor=0.5,
            what="The loss of step 6 is NaN. Training went back to step 3 and continues at half the learning rate.",
        )
    )
    played.says(
        e.Warned(
            what="The previews at step 3 could not be drawn: no memory.", where="previews", do="Training continues."
        )
    )
    sent = tick(tab, watcher)
    warnings = sent["warnings"]["value"]
    assert "step 3 of 100" in sent["state"]["value"]
    assert "continues at half the learning rate" in warnings and "could not be drawn: no memory" in warnings


def test_warnings_of_one_kind_are_one_line():
    """Forty cropped pictures push the result off the page; or one of them is not told."""
    cropped = [e.Warned(what=f"{i} % of {i}.png are cropped.", where=f"a/{i}.png", do="Crop it.") for i in range(1, 41)]
    others = [e.Warned(what=what) for what in ("No memory.", "Disk slow.", "A rate of 0.5 is high.")]
    html = warned.html([*cropped, *cropped[:3], *others])
    assert html.count("<summary>") == 4 + 1 and "40 of this kind" in html and "1 more kind of warnings" in html
    assert html.count("<li>") == 43 and "<code>a/7.png</code> Crop it." in html
    assert html.index("A rate of 0.5") < html.index("No memory") < html.index("cropped")
    assert warned.html([]) == "" and "And 150 earlier ones" in warned.html(
        [e.Warned(what=f"{i} is odd.") for i in range(250)]
    )


def test_the_title_tells_what_is_at_work_and_how_it_ended(watcher, part):
    """She looks into ten tabs to see how far it is; or the end is told again at each tick."""
    played, tab = part("ink"), TabState()
    played.begins(total=50)
    played.trains(1, 21)
    assert 'data-title="42 % · ink" data-end=""></p>' in tick(tab, watcher)["said"]["value"]
    played.draws(21)
    assert ">Previews of step 21.</p>" in tick(tab, watcher)["said"]["value"]
    tab.prompt = 1
    assert tick(tab, watcher)["said"]["value"].endswith("></p>"), "once"
    played.finishes(50)
    told = tick(tab, watcher)["said"]["value"]
    assert 'data-title="Finished · ink" data-end="Finished · ink">ink: finished.</p>' in told
    later = part("later")
    later.begins(total=10)
    later.trains(1, 1)
    assert 'data-title="10 % · later" data-end="Finished · ink"' in tick(tab, watcher)["said"]["value"]
    later.finishes(10)
    assert 'data-title="Finished · later" data-end="Finished · later"' in tick(tab, watcher)["said"]["value"]
    assert 'data-title="" data-end=""></p>' in tick(TabState(), watcher)["said"]["value"], "nothing ended in this tab"


@pytest.mark.fault(56)
def test_a_drive_that_goes_away_and_comes_back_does_not_stop_the_page(watcher, part, tmp_path):
    """The timer dies with the first look at a folder that is not there."""
    played, tab = part("one", tmp_path / "drive"), TabState()
    away = RunWatcher(tmp_path / "drive")
    played.begins()
    assert tick(tab, away)["runs"]["value"] == "<h2>one</h2>"
    (tmp_path / "drive").rename(tmp_path / "elsewhere")
    assert tick(tab, away)["blank"]["visible"]
    (tmp_path / "elsewhere").rename(tmp_path / "drive")
    assert tick(tab, away)["runs"]["value"] == "<h2>one</h2>"


@pytest.mark.fault(47)
def test_a_request_shows_before_the_worker_answers_it(watcher, part):
    """The user presses Stop again and again because nothing moves."""
    played, tab = part("one"), TabState()
    played.begins()
    played.trains(1, 3)
    tick(tab, watcher)
    control.ask(played.run, Request.STOP)
    sent = tick(tab, watcher)
    assert "stopping after this step" in sent["state"]["value"] and not sent["stop"]["interactive"]


def test_the_adapter_is_offered_under_its_name(watcher, part, tmp_path):
    """The adapter cannot be downloaded, or the whole outputs folder is served for it."""
    played, tab = part("my style", base="sd15.safetensors"), TabState()
    played.begins()
    played.trains(1, 3)
    played.finishes(3, stopped=True)
    html = tick(tab, watcher)["result"]["value"]
    assert (
        'download="my-style.safetensors"' in html and "/page/adapters/" in html and "&lt;lora:my-style:0.8&gt;" in html
    )
    assert 'href="#library/my-style/my-style.safetensors"' in html
    assert "Stop" not in html


def test_the_ranks_of_blocks_are_told_beside_the_runs_own(watcher, part):
    played, tab = (
        part("ink", by_block=["mid_block rank=32", "up_blocks.1 rank=8", "up_blocks.2 rank=16 rate=2"]),
        TabState(),
    )
    played.begins()
    played.trains(1, 3)
    played.finishes(3)
    assert "rank 16 (in blocks 8 and 32)" in tick(tab, watcher)["result"]["value"]


def test_a_start_along_the_layers_inputs_is_told(part):
    played = part("one")
    played.begins()
    played.says(e.LayersSeen(what="inputs", layers=64, of=64, samples=16, seconds=4.5, memory=2**20))
    assert "started along its layers&#x27; inputs" in status.line(played.run, fold(played.run))


def test_a_measured_strength_takes_the_place_of_the_usual_one(watcher, part):
    played, tab = part("my style", base="sd15.safetensors"), TabState()
    played.begins()
    played.trains(1, 3)
    played.finishes(3, stopped=True)
    path = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    made = Adapter({path: factors(path, SD15, SD15)})
    adapters.write(made, played.run.adapter_file, metadata=usage.texts(Strength(0.6, 0.4, 1.0), {}))
    html = tick(tab, watcher)["result"]["value"]
    assert "Start at a strength of 0.6; style and subjects hold from 0.4 to 1." in html
    assert "a strength of 0.6.</dd>" in html and "&lt;lora:my-style:0.6&gt;" in html and "0.8" not in html


STARTER, SD15 = 384, 1280
"""Widths of the layer in the middle."""


@pytest.mark.parametrize(
    "base, width, header, said, unsaid",
    [
        ("starter", STARTER, {}, "works only with that", "ComfyUI</dt>"),
        ("/copies/starter", STARTER, {}, "works only with that", "ComfyUI</dt>"),
        ("sd15.safetensors", SD15, {"ss_clip_skip": "1"}, "ComfyUI</dt>", "clip skip"),
        ("sd15.safetensors", SD15, {"ss_clip_skip": "2"}, "Set clip skip to 2", "works only"),
    ],
)
def test_the_advice_for_other_programs_fits_the_adapter(watcher, part, base, width, header, said, unsaid):
    """An adapter of the starter is taken to ComfyUI, where it fails; one with clip skip 2 is drawn with 1."""
    played, tab = part("one", base=base), TabState()
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    ones = {"lora_up": (width, 1), "lora_down": (1, width)}
    tensors = {f"{layer}.{half}.weight": np.ones(shape, np.float32) for half, shape in ones.items()}
    save_file(tensors, played.run.adapter_file, header)
    played.says(e.Finished(adapter=played.run.adapter_file.name, steps=1, seconds=1.0, final_loss=0.1))
    html = tick(tab, watcher)["result"]["value"]
    assert said in html and unsaid not in html


@pytest.mark.fault(61)
@pytest.mark.parametrize("adapter", ["../settings.toml", "/etc/passwd", "../../x"])
@pytest.mark.fault(61)
def test_an_event_cannot_offer_another_file(watcher, part, adapter):
    """A run folder from elsewhere makes the studio hand out the user's files."""
    played, tab = part("one"), TabState()
    played.says(e.Finished(adapter=adapter, steps=1, seconds=1.0, final_loss=0.1))
    assert not tick(tab, watcher)["result"]["visible"]


def test_a_renamed_run_offers_its_adapter_and_says_when_that_is_gone(watcher, part, tmp_path):
    """The card of a renamed run has no file and no buttons; or an adapter that was deleted is gone without a word."""
    played = part("blueprint")
    played.finishes(5)
    run = renaming.rename(renaming.rename(played.run, "wash"), "b-c")
    shown = tick(TabState(run="b-c"), watcher)["result"]["value"]
    assert "<h3>b-c.safetensors</h3>" in shown and 'href="#draw/b-c/b-c.safetensors"' in shown
    run.adapter_file.unlink()
    gone = tick(TabState(run="b-c"), watcher)["result"]["value"]
    assert "The adapter b-c.safetensors is not in the run&#x27;s folder any more." in gone


@pytest.mark.fault(20)
def test_texts_of_a_run_are_shown_as_text(watcher, part):
    """A prompt, a message or a file's name runs as a script."""
    played, tab = part("one"), TabState()
    played.begins()
    evil = "<img src=x onerror=alert(1)>"
    played.says(
        e.Warned(what=evil, where=evil, do=evil),
        e.Preparing(stage=evil, done=1, total=2),
        e.Failed(what=evil, where=evil, do=evil, ours=True),
    )
    played.run.log_file.write_text(evil)
    sent = tick(tab, watcher)
    assert evil not in repr(sent) and "&lt;img" in sent["state"]["value"] and "&lt;img" in sent["warnings"]["value"]
    assert sent["film"]["value"]["prompts"][1] == [1, "<b>a house</b>", "<b>a house</b>"], (
        "data, which the page sets as text"
    )


def test_the_chosen_frame_stays_while_new_ones_come(watcher, part):
    """Each new preview takes the large picture away from the user."""
    played, tab = part("one"), TabState()
    played.begins()
    played.trains(1, 20)
    played.draws(10)
    played.draws(20)
    tick(tab, watcher)
    tab.comparing = True
    assert "step 20, the latest" in tick(tab, watcher)["pair"]["value"]
    tab.step, tab.prompt = 10, 1
    assert "step 10 · seed 2" in tick(tab, watcher)["pair"]["value"]
    played.draws(30)
    film = tick(tab, watcher)["film"]["value"]
    assert [column[0] for column in film["columns"]] == [10, 20, 30] and (film["step"], film["prompt"]) == (10, 1)
    assert tab.sent["pair"]["value"].count("step 10 · seed 2") == 1


def test_a_preview_that_is_gone_leaves_a_gap(watcher, part):
    """One deleted image empties the whole film."""
    played, tab = part("one"), TabState()
    played.begins()
    played.draws(10)
    played.run.preview_file(10, 0).unlink()
    film = tick(tab, watcher)["film"]["value"]
    assert [bool(name) for name in film["columns"][0][1] + film["base"]] == [False, True, True, True]


def test_a_film_of_many_steps_stays_bounded(part, tmp_path):
    """A preview at every step fills the page with thousands of images."""
    played = part("one")
    steps = [e.PreviewReady(step=i, index=0, prompt="p", seed=1, path="gone.png") for i in range(1, 501)]
    view = RunWatcher(tmp_path)
    played.says(*steps)
    with view.view(played.run) as folded:
        film = previews.data(played.run, previews.filmstrip(folded), 123, 0, tmp_path)
    columns = [column[0] for column in film["columns"]]
    assert len(columns) <= previews.MOST_STEPS + 1 and {1, 123, 500} <= set(columns)


def test_a_tick_of_a_long_run_stays_small(part, watcher, monkeypatch):
    """Every two seconds a run of 50,000 steps and 500 previews sends as much as the page itself."""
    monkeypatch.setattr(previews, "copy", lambda *_: Path("0123456789abcdef" * 2 + ".webp"))
    played, tab = part("long", preview_every=100), TabState()
    played.begins(60_000)

    def step(at: int) -> e.StepDone:
        seen = {"learning_rate": 1e-4, "images_per_second": 4.0, "seconds": 1.0, "eta": 75.0}
        return e.StepDone(step=at, loss=0.1 + 0.01 * (at % 7), **seen)

    def drawn(at: int) -> list[e.PreviewReady]:
        return [e.PreviewReady(step=at, index=i, prompt=f"a cat, {i}", seed=i, path="a.png") for i in range(4)]

    log = [step(at) for at in range(10, 50_000, 10)] + [one for at in range(100, 50_000, 100) for one in drawn(at)]
    log += [e.Measured(step=at, name="validation", title="Validation", value=0.1) for at in range(500, 50_000, 500)]
    with open(played.run.events_file, "a") as file:
        file.writelines(one.line() + "\n" for one in log)
    first = len(json.dumps(tick(tab, watcher)))
    played.says(step(50_000), *drawn(50_000))
    sent = tick(tab, watcher)
    assert {"film", "loss", "state"} <= set(sent) and len(json.dumps(sent)) < 30_000 and first < 40_000


def test_the_film_leaves_room_for_what_is_to_come(watcher, part):
    """Frames shrink with each preview, so that the page jumps; or a film of hundreds has hundreds of empty places."""
    played, tab = part("one", preview_every=20), TabState()
    played.begins(100)
    played.draws(20)
    film = tick(tab, watcher)["film"]["value"]
    assert film["coming"] == [40, 60, 80, 100] and film["frames"] == 6
    played.draws(40)
    film = tick(tab, watcher)["film"]["value"]
    assert film["coming"] == [60, 80, 100] and film["frames"] == 6
    long = part("two", preview_every=20)
    long.begins(1000)
    film = tick(tab, watcher)["film"]["value"]
    assert film["coming"] == [] and film["frames"] == 51


def test_summary_for_programs(watcher, part):
    """Scripts and tests have to read the page."""
    played = part("one")
    played.begins(total=10)
    played.trains(1, 5)
    assert watcher.summary() == [{"name": "one", "state": "running", "progress": 0.5}]


def test_every_state_has_a_sentence(watcher, part):
    """A new state shows up without words."""
    for state in State:
        played = part(f"in-{state}")
        played.says(e.StateChanged(state=state))
        with watcher.view(played.run) as view:
            assert status.line(played.run, view)


def test_that_there_is_no_run_is_not_said_before_anybody_looked():
    """It stood there for a moment at every reload, also beside a run that trained."""
    with gr.Blocks():
        assert not page._place_run(SimpleNamespace(sample=None))["blank"].visible
    assert tick(TabState(), RunWatcher(Path("none such")))["blank"] == gr.update(visible=True)


@pytest.mark.fault(90)
def test_damaged_states_are_listed_as_such(part):
    made = part("ink")
    made.begins()
    save(made.run, 5, 9)
    (made.run.checkpoint(9) / "adapter.safetensors").unlink()
    states = tick(TabState(), RunWatcher(made.run.folder.parent))["states"]["value"]
    good, bad = states.split("<tr>")[1:]
    assert "step 5" in good and ">Branch<" in good
    assert "step 9</th>" in bad and "damaged: adapter.safetensors is missing</td>" in bad and ">Branch<" not in bad
