"""The live half without a browser: what a tick sends, and that it sends nothing twice."""

import gradio as gr
import pytest

from lora_studio import events as e
from lora_studio.events import State
from lora_studio.jobs import control
from lora_studio.jobs.control import Request
from lora_studio.ui.pages.train import previews, status
from lora_studio.ui.pages.train.live import PARTS, Tab, Watch, tick


def seen(tab, watch):
    """The parts that a tick changes, by name."""
    return {name: update for name, update in zip(PARTS, tick(tab, watch), strict=True) if update != gr.skip()}


@pytest.fixture
def watch(tmp_path):
    return Watch(tmp_path)


def test_an_empty_outputs_folder_says_what_to_do(watch):
    """A new user sees an empty half page."""
    sent = seen(Tab(), watch)
    assert sent["blank"]["visible"] and not sent["run_card"]["visible"] and sent["start"]["interactive"]


def test_a_tick_sends_nothing_twice(watch, part):
    """Everything is drawn anew every two seconds, and the user's scroll and slider jump."""
    played, tab = part("one"), Tab()
    played.begins()
    played.trains(1, 5)
    assert {"state", "loss", "film", "runs"} <= set(seen(tab, watch))
    assert seen(tab, watch) == {}
    played.trains(6, 6)
    assert set(seen(tab, watch)) == {"pill", "state", "loss"}


@pytest.mark.fault(52)
def test_two_tabs_are_sent_the_same(watch, part):
    """One tab steals the other's updates."""
    played, one, other = part("one"), Tab(), Tab()
    played.begins()
    assert seen(one, watch) == seen(other, watch)
    played.trains(1, 3)
    assert seen(one, watch) == seen(other, watch) != {}


@pytest.mark.fault(52)
def test_a_run_started_elsewhere_is_shown_and_an_earlier_one_stays_chosen(watch, part):
    """The second tab stays with the old run; or an earlier run cannot be looked at while another trains."""
    part("one").begins()
    tab = Tab()
    assert seen(tab, watch)["runs"]["value"] == "one"
    part("two").begins()
    assert seen(tab, watch)["runs"]["value"] == "two"
    tab.look_at("one")
    assert seen(tab, watch)["runs"]["value"] == "one"
    assert tick(tab, watch) and tab.run == "one"


@pytest.mark.fault(38)
def test_a_killed_worker_is_seen(watch, part):
    """The page says "training" for ever."""
    played, tab = part("one"), Tab()
    played.begins()
    played.trains(1, 3)
    seen(tab, watch)
    played.dies()
    sent = seen(tab, watch)
    assert "Interrupted" in sent["state"]["value"] and sent["go_on"] == gr.update(visible=True, value="Begin again", interactive=True)
    assert sent["start"]["interactive"] and not sent["pause"]["visible"]


@pytest.mark.parametrize(("state", "buttons"), [
    (State.QUEUED, set()),
    (State.PREPARING, {"stop"}),
    (State.RUNNING, {"pause", "stop", "preview"}),
    (State.PAUSED, {"go_on", "stop"}),
    (State.STOPPING, set()),
])  # fmt: skip
def test_each_state_offers_what_it_can_do(watch, part, state, buttons):
    """A button is offered that the worker will not heed."""
    played, tab = part("one"), Tab()
    played.lives()
    played.says(e.StateChanged(state=state))
    sent = seen(tab, watch)
    assert {name for name in ("pause", "go_on", "stop", "preview") if sent[name]["visible"]} == buttons


@pytest.mark.fault(47)
def test_a_request_shows_before_the_worker_heeds_it(watch, part):
    """The user presses Stop again and again because nothing moves."""
    played, tab = part("one"), Tab()
    played.begins()
    played.trains(1, 3)
    seen(tab, watch)
    control.ask(played.run, Request.STOP)
    sent = seen(tab, watch)
    assert "stopping after this one" in sent["state"]["value"] and not sent["stop"]["interactive"]


def test_the_adapter_is_offered_under_its_name(watch, part, tmp_path):
    """The adapter cannot be downloaded, or the whole outputs folder is served for it."""
    played, tab = part("my style"), Tab()
    played.begins()
    played.trains(1, 3)
    played.finishes(3, stopped=True)
    html = seen(tab, watch)["result"]["value"]
    assert 'download="my-style.safetensors"' in html and "/page/adapters/my-style-" in html and "&lt;lora:my-style:0.8&gt;" in html
    assert "Stop" not in html


@pytest.mark.fault(61)
@pytest.mark.parametrize("adapter", ["../settings.toml", "/etc/passwd", "../../x", "gone.safetensors"])
def test_an_event_cannot_offer_another_file(watch, part, adapter):
    """A run folder from elsewhere makes the studio hand out the user's files."""
    played, tab = part("one"), Tab()
    played.says(e.Finished(adapter=adapter, steps=1, seconds=1.0, final_loss=0.1))
    assert not seen(tab, watch)["result_card"]["visible"]


@pytest.mark.fault(20)
def test_texts_of_a_run_are_shown_as_text(watch, part):
    """A prompt, a message or a file's name runs as a script."""
    played, tab = part("one"), Tab()
    played.begins()
    evil = "<img src=x onerror=alert(1)>"
    played.says(e.Warned(what=evil, where=evil, do=evil), e.Preparing(stage=evil, done=1, total=2), e.Failed(what=evil, where=evil, do=evil, ours=True))
    played.run.log_file.write_text(evil)
    sent = seen(tab, watch)
    assert evil not in repr(sent) and "&lt;img" in sent["state"]["value"] and "&lt;b&gt;a house" in sent["film"]["value"]


def test_the_chosen_frame_stays_while_new_ones_come(watch, part):
    """Each new preview takes the large picture away from the user."""
    played, tab = part("one"), Tab()
    played.begins()
    played.trains(1, 20)
    played.draws(10)
    played.draws(20)
    assert "step 20, the latest" in seen(tab, watch)["pair"]["value"]
    tab.step, tab.prompt = 10, 1
    assert "step 10 · seed 2" in seen(tab, watch)["pair"]["value"]
    played.draws(30)
    sent = seen(tab, watch)
    assert "pair" not in sent and 'data-step="30"' in sent["film"]["value"]


def test_a_preview_that_is_gone_leaves_a_gap(watch, part):
    """One deleted image empties the whole film."""
    played, tab = part("one"), Tab()
    played.begins()
    played.draws(10)
    played.run.preview_file(10, 0).unlink()
    film = seen(tab, watch)["film"]["value"]
    assert film.count("missing") == 1 and film.count("<img") == 3


def test_a_film_of_many_steps_stays_bounded(part, tmp_path):
    """A preview at every step fills the page with thousands of images."""
    played = part("one")
    steps = [e.PreviewReady(step=i, index=0, prompt="p", seed=1, path="gone.png") for i in range(1, 501)]
    view = Watch(tmp_path)
    played.says(*steps)
    with view.view(played.run) as folded:
        html = previews.html(played.run, previews.develop(folded), None, 0, tmp_path)
    assert html.count("<span>") == previews.MOST_STEPS + 1 and "<span>500</span>" in html


def test_summary_for_programs(watch, part):
    """Scripts and tests have to read the page."""
    played = part("one")
    played.begins(total=10)
    played.trains(1, 5)
    assert watch.summary() == [{"name": "one", "state": "running", "progress": 0.5}]


def test_every_state_has_a_sentence(watch, part):
    """A new state shows up without words."""
    for state in State:
        played = part(f"in-{state}")
        played.says(e.StateChanged(state=state))
        with watch.view(played.run) as view:
            assert status.line(played.run, view)
