"""Judged states on the Train page: what is proposed, drawn and sent, and one walk in the browser."""

import os
import re

import pytest
from PIL import Image
from playwright.sync_api import expect

from lora_studio import adapters, files
from lora_studio import events as e
from lora_studio.adapters import usage
from lora_studio.adapters.head import relabel
from lora_studio.adapters.usage import Strength
from lora_studio.evaluation import judgements, strength
from lora_studio.evaluation.judgements import Copy
from lora_studio.evaluation.strength import StrengthRange, StrengthRow
from lora_studio.evaluation.value import Value
from lora_studio.events import State
from lora_studio.jobs.eventlog import EventLog
from lora_studio.jobs.judging import JudgingJob
from lora_studio.ui.pages.train import judged_advice, judged_curves, page
from lora_studio.ui.pages.train.judged import EvaluationCache
from lora_studio.ui.pages.train.judged_curves import Highlight
from lora_studio.ui.pages.train.live import RunWatcher, TabState, tick
from tests.ui.played import judged, save, until, write_adapter


@pytest.fixture
def watcher(tmp_path):
    return RunWatcher(tmp_path)


@pytest.fixture
def ended(part):
    """A run of 200 steps that has ended, with states at 50, 100 and 200."""
    played = part("one")
    played.begins(200)
    played.trains(1, 5)
    played.trains(200, 200)
    played.draws(100)
    played.draws(200)
    save(played.run, 50, 100, 200)
    played.finishes(200)
    return played


def judge_all(run, **last):
    judged(run, 50, (40, 30, 50))
    judged(run, 100, (80, 70, 90))
    judged(run, 200, (81, 71, 91), **last)


def test_a_run_without_pictures_is_not_offered_to_be_judged(ended, watcher):
    """The button's job can only fail."""
    settings, found = ended.run.settings().changed(data="size.toml", trigger=""), EvaluationCache().of(ended.run)
    with watcher.view(ended.run) as view:
        offered = judged_advice.html(ended.run, view, found, ended.run.settings(), watcher.outputs)
        shown = judged_advice.html(ended.run, view, found, settings, watcher.outputs)
    assert "3 saved states are not judged." in offered
    assert "How strong is it?" in shown and "not judged" not in shown


def test_a_point_stands_where_its_state_was_measured(ended):
    """The curve is upside down, or its states stand at other steps."""
    judge_all(ended.run, subject=(0.3, 0.25, 0.35))
    found = EvaluationCache().of(ended.run)
    style = judged_curves.style(found.states, 200, Highlight(100, 50))
    points = re.findall(r'data-step="(\d+)" aria-pressed="(\w+)".*?style="left:([\d.]+)%;top:([\d.]+)%"', style)
    assert points == [("50", "true", "25", "60"), ("100", "false", "50", "20"), ("200", "false", "100", "19")]
    (band,) = re.findall(r'class="band" d="M([^"]*)Z"', style)
    assert band == "0 1000L250 500L500 100L1000 90L1000 290L500 300L250 700L0 1000"
    assert 'class="proposed" style="left:50%"' in style and "Step 50: style 40 % (30 to 50)" in style

    subjects = judged_curves.subjects(found.states, 200, Highlight(100, 50))
    assert 'class="level-name" style="top:38.46%">training pictures' in subjects, "0.4 of 0 to 0.65, the widest band"
    assert re.findall(r'class="point( wrong)?" data-act="show" data-step="(\d+)"', subjects) == [
        ("", "50"),
        ("", "100"),
        (" wrong", "200"),
    ]
    assert "subjects fade</span>" in subjects and "possible copies" not in subjects


def test_an_interval_wider_than_the_scale_is_no_band_but_words(watcher, ended):
    """Two prompts tell nothing, and a bar over everything looks like a finding."""
    judged(ended.run, 50, (40, -70, 150), subject=(0.3, -0.1, 0.7))
    judged(ended.run, 100, (-80, -90, -70))
    judged(ended.run, 200, (60, 50, 70))
    sent = tick(TabState(), watcher)
    learned = sent["learned"]["value"]
    assert (
        "Step 50: style 40 % (too few prompts to tell)" in learned and "Step 100: style −80 % (−90 to −70)" in learned
    )
    assert "Step 50: too few prompts to tell whether subjects hold, 0.30 to 0.40" in learned
    style = learned[: learned.index("<h3>Subjects</h3>")]
    learned_by = {column[0]: column[2:] for column in sent["film"]["value"]["columns"]}
    assert learned_by == {100: ["−80 %", "± 10", "hold", False], 200: ["60 %", "± 10", "hold", False]}
    assert "no band: too few prompts to tell" in style and "95 % interval" in style and "−50 %</span>" in style
    bands = re.findall(r'class="band" d="M([^"]*)Z"', style)
    assert [len(band.split("L")) for band in bands] == [2, 4], "from the base model on, and of steps 100 and 200"


def test_one_sentence_says_which_state_to_keep_and_why(watcher, ended):
    """The user has to compare curves to find the state."""
    judge_all(ended.run, subject=(0.3, 0.25, 0.35))
    shown = tick(TabState(), watcher)
    advice = shown["advice"]["value"]
    assert "<h2>Keep step 100</h2>" in advice and "Recommended<" in advice and "so far" not in advice
    assert "Style 80 % (between 70 and 90)" in advice and "no copies" in advice
    assert re.sub("<[^>]*>", "", advice[advice.index("Freer") :]).startswith(
        "Freer: step 50 · tighter: step 200 · steps 100 and 200 cannot be told apart in style"
    )
    assert 'data-act="keep" data-step="100"' in advice and 'data-act="branch" data-step="100"' in advice
    assert "#draw/one/checkpoints/step-100/adapter.safetensors" in advice
    film = shown["film"]["value"]
    assert "★ 100" in shown["loss"]["value"] and film["proposed"] == film["step"] == 100
    assert [column[2:] for column in film["columns"]] == [
        ["80 %", "± 10", "hold", False],
        ["81 %", "± 10", "fade from here", True],
    ]
    assert "step 100 · a cat" in shown["chosen"]["value"] and "<h3>Step 100</h3>" in shown["drawn"]["value"]
    assert shown["drawn"]["value"].count("base model") == 1 + 2 * 2, "the hint, and each prompt's alt and title"


def test_while_the_run_trains_the_best_state_is_the_best_so_far(watcher, part):
    """ "Keep step 50", says the page, and the run is far from done."""
    played = part("one")
    played.begins(200)
    played.trains(1, 60)
    judged(played.run, 50, (40, 30, 50))
    advice = tick(TabState(), watcher)["advice"]["value"]
    assert "<h2>Best so far: step 50</h2>" in advice and ">Judged while it trains<" in advice
    assert "#draw/one/evaluation/step-50/adapter.safetensors" in advice and 'data-act="branch"' in advice
    played.finishes(200)
    assert "<h2>Keep step 50</h2>" in tick(TabState(), watcher)["advice"]["value"]


def test_the_result_tells_the_strength_once_it_is_written_into_the_adapter(watcher, ended):
    """What was measured is known a moment before the adapter's header says so."""
    judge_all(ended.run)
    tab, levels = TabState(), Value(0.4, 0.3, 0.5)
    strength.write(ended.run, StrengthRange(200, (StrengthRow(1, levels, levels),), levels, 0.8, 1.2, 1.0), "key")
    assert "0.8 to 1.2" not in tick(tab, watcher)["result"]["value"]
    texts = usage.texts(Strength(1.0, 0.8, 1.2), adapters.header(ended.run.adapter_file).metadata)
    relabel(ended.run.adapter_file, texts, ended.run.adapter_file)
    assert "0.8 to 1.2" in tick(tab, watcher)["result"]["value"]


def test_states_that_were_not_judged_are_offered(watcher, ended):
    """Nobody finds out that states can be judged, or what it costs."""
    advice = tick(TabState(), watcher)["advice"]["value"]
    assert "Which state to keep?" in advice and re.search(
        r"3 saved states are not judged\. Judging takes about .* (second|minute)", advice
    )
    assert 'data-act="judge"' in advice
    judged(ended.run, 50, (40, 30, 50))
    advice = tick(TabState(), watcher)["advice"]["value"]
    assert "Recommended so far" in advice and "2 other saved states are not judged." in advice


def test_the_strengths_of_a_run_that_was_judged_while_training_are_offered(watcher, ended):
    """A run is judged as it trains, and the page has no way to say at which strength to use it; or the time that it
    promises leaves out what it draws for that.
    """
    judge_all(ended.run)
    ended.says(judgements.event(judgements.judged(ended.run)[0], 8.0))
    advice = tick(TabState(), watcher)["advice"]["value"]
    assert "At which strengths step 200 holds is not known. Measuring takes about 24 seconds." in advice, (
        "32 to 96 pictures"
    )
    assert 'data-act="judge"' in advice and ">Measure strengths<" in advice
    levels = Value(0.4, 0.3, 0.5)
    strength.write(ended.run, StrengthRange(200, (StrengthRow(1, levels, levels),), levels, 0.8, 1.2, 1.0), "key")
    assert "Measure strengths" not in tick(TabState(), watcher)["advice"]["value"]


def test_a_run_that_kept_one_state_says_how_to_get_more(watcher, part):
    played = part("short")
    played.begins()
    played.trains(1, 3)
    save(played.run, 100)
    played.finishes(100)
    advice = tick(TabState(), watcher)["advice"]["value"]
    assert "<b>Preview every</b>" in advice and 'data-act="judge"' in advice


def test_a_state_that_was_judged_is_sent_and_said_once(watcher, ended, monkeypatch):
    """Files are read every two seconds for nothing; a screen reader hears nothing, or everything anew."""
    reads, read = [], judgements.judged
    monkeypatch.setattr(judgements, "judged", lambda run: reads.append(run) or read(run))
    judged(ended.run, 50, (40, 30, 50))
    one, other = TabState(), TabState()
    assert tick(one, watcher)["said"]["value"].endswith("></p>")
    assert tick(one, watcher) == tick(one, watcher) == {} and len(reads) == 1
    tick(other, watcher)
    judged(ended.run, 100, (80, 70, 90))
    changed = tick(one, watcher)
    assert changed["said"]["value"].endswith(">Step 100 judged: style 80 % (70 to 90).</p>")
    assert set(changed) == {"said", "advice", "learned", "states", "drawn", "film", "chosen", "loss"}
    assert tick(other, watcher) == changed and len(reads) == 2
    one.step = 50
    changed = tick(one, watcher)
    assert changed["said"]["value"].endswith("></p>") and "<h3>Step 50</h3>" in changed["drawn"]["value"]
    assert tick(other, watcher) == {}, "which state another tab shows is its own"


def test_a_kept_state_can_be_downloaded(watcher, ended, tmp_path):
    """Keep is pressed, and nothing is there."""
    judge_all(ended.run)
    tab = TabState()
    tick(tab, watcher)
    page._WITH_STATE["keep"](tab, ended.run, 200)
    sent = tick(tab, watcher)
    assert 'download="one-step-200.safetensors"' in sent["advice"]["value"]
    assert "#library/one/one-step-200.safetensors" in sent["advice"]["value"]
    assert 'data-act="keep" data-step="200"' not in sent["states"]["value"] + sent["drawn"]["value"]
    assert 'data-act="keep" data-step="100"' in sent["states"]["value"], "any other state can be kept too"
    assert ended.run.kept_file(200).is_file()


def test_the_result_says_which_state_it_is(watcher, ended):
    """The best state was kept as the run's adapter, and the card tells of the last one."""
    assert "<span>200 steps</span>" in tick(TabState(), watcher)["result"]["value"]
    ended.says(e.StateKept(step=100, what="Step 100 has most of the style."))
    assert "<span>step 100 of 200</span>" in tick(TabState(), watcher)["result"]["value"]


def test_a_possible_copy_stands_beside_its_training_picture(watcher, part, pictures, tmp_path):
    """She is told of a copy and cannot see it; or a file outside of her pictures is shown."""
    played = part("copied", data=str(pictures))
    played.begins(200)
    secret = tmp_path / "secret.png"
    Image.new("RGB", (32, 32)).save(secret)
    far = f"../{'../' * 20}{secret}"
    copies = (Copy(1, 0, "drawing 3.png", 0.93), Copy(0, 0, far, 0.91))
    judged(played.run, 100, (80, 70, 90), copies=copies)
    sent = tick(TabState(), watcher)
    drawn = sent["drawn"]["value"]
    assert "<b>&lt;b&gt;a house&lt;/b&gt;</b>, 93 % like drawing 3.png" in drawn
    assert drawn.count('class="gone"') == 1 and drawn.count('alt="drawing 3.png"') == 1
    assert (
        "▲ 2" in sent["learned"]["value"] and "2 of 4 pictures of new prompts may be copies" in sent["advice"]["value"]
    )


def test_damaged_judgements_and_lost_pictures_leave_the_rest(watcher, ended):
    """One torn file takes the page's timer along."""
    judge_all(ended.run)
    (ended.run.evaluation / "step-200" / "judged.json").write_text('{"key": "the sa')
    (ended.run.evaluation / "step-100" / "0-0.png").write_bytes(b"no picture")
    (ended.run.evaluation / "step-100" / "1-0.png").unlink()
    sent = tick(TabState(), watcher)
    assert (
        "Keep step 100" in sent["advice"]["value"] and "1 other saved state is not judged." in sent["advice"]["value"]
    )
    assert sent["drawn"]["value"].count('class="gone"') == 2


def test_states_are_judged_chosen_and_kept_in_the_browser(visit, studio, part):
    """A press on a state does nothing, a screen reader hears nothing, or the judging cannot be stopped."""
    played = part("browsed", studio.outputs)
    run = played.run
    played.begins(200)
    played.trains(1, 3)
    save(run, 100, 200)
    played.finishes(200)
    order = JudgingJob(run.judging)
    files.write(order.order_file, "{}")
    EventLog(order.events_file).append(e.JudgingStarted(total=2))
    order.register(os.getpid())
    page = visit()
    advice = page.locator("#advice")
    expect(advice.get_by_role("progressbar", name="Judging")).to_be_visible()
    expect(advice).to_contain_text("0 of 2 states judged")
    part("newer", studio.outputs).says(e.StateChanged(state=State.INTERRUPTED))
    expect(advice).not_to_be_visible()  # a newer run is shown at once
    expect(page.locator(".pill")).to_have_text("browsed · judging")
    page.locator(".pill").click()
    advice.get_by_role("button", name="Stop").press("Enter")
    until(order.stop_file.exists)
    expect(advice).to_contain_text("Stopping")

    judged(run, 100, (80, 70, 90))
    expect(advice.get_by_role("heading")).to_have_text("Keep step 100")
    expect(page.get_by_role("status").filter(has_text="Step 100 judged: style 80 %")).to_be_attached()
    height = "document.querySelector('#saved-states').getBoundingClientRect().top + scrollY"
    top = page.evaluate(height)
    judged(run, 200, (60, 50, 70))
    point = page.locator("#learned").get_by_role("button", name="Step 200: style 60 %")
    point.press("Enter")
    expect(page.locator("#drawn h3")).to_have_text("Step 200")
    expect(point).to_have_attribute("aria-pressed", "true")
    expect(point).to_be_focused()
    assert page.evaluate(height) == top, "nothing jumps as states come in"
    page.locator("#drawn").get_by_role("button", name="Keep step 200").click()
    expect(page.locator("#drawn .is-kept")).to_be_visible()
    advice.get_by_role("button", name="Keep step 100").press("Enter")
    expect(advice.get_by_role("link", name="Download step 100")).to_be_focused()
    with page.expect_download() as download:
        advice.get_by_role("link", name="Download step 100").click()
    assert download.value.suggested_filename == "browsed-step-100.safetensors"
    page.reload()
    page.locator(".pill").click()
    expect(page.get_by_role("link", name="Download step 100")).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


# Acting on a preview


def test_a_preview_is_a_state_to_keep_download_draw_with_and_branch_from(watcher, part):
    """She sees the look that she wants, and cannot have it."""
    played, tab = part("looks"), TabState()
    played.begins()
    for step in (10, 20, 30):
        played.draws(step)
    save(played.run, 20)
    judgements.keep_unjudged(played.run.evaluation, 10, write_adapter)

    def acts(step: int) -> list[str]:
        tab.step = step
        return re.findall(r"<(?:a|button) [^>]*>([^<]*)<", tick(tab, watcher)["chosen"]["value"])

    tick(tab, watcher)
    assert acts(10) == acts(20) == ["Keep this one", "Download", "Branch", "Draw with it", "Compare"]
    assert acts(30) == ["Compare"] and "not kept" in tick(TabState(), watcher)["chosen"]["value"]
    states = tick(TabState(), watcher)["states"]["value"]
    assert "adapter only · 1 KB" in states and "1 adapter kept with previews or judgements: 1 KB." in states
    assert "neither kept nor judged, the latest 10 stay" in states
    page._WITH_STATE["keep"](tab, played.run, 10)
    assert acts(10) == ["Download", "Branch", "Draw with it", "Compare"]
    assert played.run.kept_file(10).is_file()


def test_a_frame_is_compared_with_the_base_model_or_another_step(watcher, part):
    """The pair shows something else than it says."""
    played, tab = part("looks"), TabState()
    played.begins()
    for step in (10, 20):
        played.draws(step)
    assert not tick(tab, watcher)["pair"]["visible"]
    page._WITH_STATE["compare"](tab, played.run, 20)
    pair = tick(tab, watcher)["pair"]["value"]
    assert re.findall(r'alt="([^"]*)"', pair) == ["a cat, step 20", "a cat, base model"]
    tab.against = 10
    pair = tick(tab, watcher)["pair"]["value"]
    assert re.findall(r'alt="([^"]*)"', pair) == ["a cat, step 20", "a cat, step 10"]
    assert '<option value="10" selected>' in pair and 'aria-label="Compare with step 10"' in pair
    page._WITH_STATE["close"](tab, played.run, 20)
    assert not tick(tab, watcher)["pair"]["visible"] and tab.against is None
