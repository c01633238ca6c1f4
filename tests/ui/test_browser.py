"""The page in a real browser, with runs whose worker the tests play."""

import re

import pytest
from playwright.sync_api import expect

from lora_studio import events as e
from lora_studio.events import State
from lora_studio.jobs import control
from lora_studio.jobs.control import Request
from lora_studio.runs import checkpoints
from tests.ui.played import PROMPTS, judged, save, until

_COUNT_SOUNDS = """() => {
  const Own = AudioContext;
  window.sounds = 0;
  window.AudioContext = class extends Own { constructor() { super(); window.sounds++; } };
}"""


def test_a_run_is_watched_from_start_to_adapter(visit, studio, part):
    """The live view stands still, flickers, or loses the frame that the user looks at."""
    played = part("watched", studio.outputs)
    page = visit()
    played.begins(total=100)
    played.trains(1, 20)
    played.draws(20)
    expect(page.locator(".sentence")).to_contain_text("Training step 20 of 100")
    expect(page.locator(".state .facts")).to_contain_text("4.0 pictures a second")
    expect(page.locator(".pill")).to_contain_text("watched · training · 20 %")
    expect(page.locator("#start")).to_have_text("Queue after watched")
    expect(page.locator(".film .frame img")).to_have_count(2 * len(PROMPTS))
    expect(page.locator(".film")).to_contain_text("<b>a house</b>")

    expect(page).to_have_title("20 % · watched – LoRA Studio")
    page.evaluate(_COUNT_SOUNDS)
    page.locator("#tell input").check()

    frame = '[data-prompt="{}"][data-step="{}"]'.format
    page.locator(frame(0, 20)).focus()
    for key, prompt, step in (
        ("ArrowDown", 1, "20"),
        ("ArrowLeft", 1, "base"),
        ("ArrowUp", 0, "base"),
        ("End", 0, "20"),
    ):
        page.keyboard.press(key)
        expect(page.locator(frame(prompt, step))).to_be_focused()
    expect(page.locator('.film [tabindex="0"]')).to_have_count(1)
    page.keyboard.press("Enter")  # once more on the chosen frame: large
    expect(page.locator(".pair")).to_be_visible()
    slider = page.locator(".pair input")
    slider.focus()
    page.keyboard.press("Escape")
    expect(page.locator(".pair")).to_have_count(0)
    expect(page.locator(frame(0, 20))).to_be_focused()
    page.locator("#chosen").get_by_role("button", name="Compare").click()
    page.locator("#pair").get_by_role("button", name="Close").click()
    expect(page.locator("#chosen").get_by_role("button", name="Compare")).to_be_focused()
    page.keyboard.press("Enter")
    slider.fill("80")
    page.locator('[data-prompt="1"][data-step="20"]').click()
    expect(page.locator(".compared .caption")).to_contain_text("<b>a house</b>")
    assert page.locator(".compared .caption").bounding_box()["width"] > 150, "it stands beside the picture, in words"
    page.evaluate("document.querySelector('path.trend').mark = document.querySelector('.frame img').mark = 'same'")
    before = page.locator("path.trend").get_attribute("d")
    played.trains(21, 40)
    played.draws(40)
    expect(page.locator(".sentence")).to_contain_text("step 40")
    expect(page.locator(".compared .caption")).to_contain_text("step 20 ")
    expect(page.locator("path.trend")).not_to_have_attribute("d", before)
    assert (
        page.evaluate("document.querySelector('path.trend').mark + document.querySelector('.frame img').mark")
        == "samesame"
    )
    assert (
        slider.input_value() == "80"
        and page.evaluate("document.querySelector('.pair').style.getPropertyValue('--at')") == "80%"
    )

    played.finishes(40, stopped=True)
    expect(page.locator(".sentence")).to_contain_text("Finished · stopped by you after 40 steps")
    expect(page).to_have_title("Finished · watched – LoRA Studio")
    assert page.evaluate("window.sounds") == 1 and page.evaluate("localStorage['lora-studio-tell']") == "on"
    with page.expect_download() as download:
        page.locator(".result .download").click()
    assert download.value.suggested_filename == "watched.safetensors"
    assert download.value.path().read_bytes() == played.run.adapter_file.read_bytes()


@pytest.mark.fault(47, 51, 52)
def test_buttons_reach_the_worker_and_every_tab_follows(visit, studio, part):
    """Two tabs show different things, or a press is lost."""
    played = part("asked", studio.outputs)
    played.begins()
    played.trains(1, 5)
    one, two = visit(), visit()
    expect(two.locator(".sentence")).to_contain_text("step 5")
    two.locator("#preview-now").click()
    until(lambda: control.asked(played.run, Request.PREVIEW))
    expect(one.locator("#preview-now")).to_be_disabled()
    two.locator("#pause").click()
    until(lambda: control.asked(played.run, Request.PAUSE))
    expect(one.locator(".sentence")).to_contain_text("pausing after this step")
    one.reload()
    one.wait_for_selector("#start")
    expect(one.locator(".sentence")).to_contain_text("pausing after this step")
    one.locator("#stop").click()
    until(lambda: control.asked(played.run, Request.STOP))
    expect(two.locator("#stop")).to_be_disabled()
    played.dies()
    expect(two.locator(".sentence")).to_contain_text("Interrupted")
    expect(one.locator("#start")).to_have_text("Start training")


def test_states_are_starred_and_branched_from_and_a_waiting_run_leaves(visit, studio, part):
    """A press on a row of the list does nothing, or the form does not hold what the branch would be trained with."""
    played, waiting = part("a-parent", studio.outputs, rank=8, trigger="inkstyle"), part("b-waiting", studio.outputs)
    save(played.run, 250, 500)
    played.begins()
    page = visit()
    choose(page, "a-parent")
    page.locator('[data-act="star"][data-step="250"]').click()
    expect(page.locator('[data-act="unstar"][data-step="250"]')).to_be_visible()
    assert checkpoints.find(played.run, 250).starred
    page.locator('[data-act="branch"][data-step="250"]').click()
    expect(page.locator(".origin")).to_contain_text("Starts from a-parent, step 250")
    expect(page.locator("#set-rank input")).to_have_value("8")
    expect(page.locator("#set-trigger").locator("input, textarea")).to_have_value("inkstyle")
    page.locator("#forget-origin").click()
    expect(page.locator(".origin")).to_be_hidden()

    waiting.lives()
    waiting.says(e.StateChanged(state=State.QUEUED))
    choose(page, "b-waiting")
    expect(page.locator(".sentence")).to_contain_text("Waiting for a-parent to end")
    page.locator("#stop").click()
    until(lambda: control.asked(waiting.run, Request.STOP))


def choose(page, name):
    """Turns to a run of that name in the list of runs."""
    if not page.locator("#runs").is_visible():
        page.locator("#open-runs").click()
    page.locator(f'#runs [data-run="{name}"] .show').click()


DRAFT = "localStorage.getItem('lora-studio-draft')"


def settled(page, expression):
    """Waits until what ``expression`` says has not changed for two seconds: answers to earlier keys may still be on
    their way.
    """
    page.wait_for_function(
        f"""() => {{
            const now = {expression};
            if (now !== window.seen) [window.seen, window.since] = [now, Date.now()];
            return Date.now() - window.since > 2000
        }}"""
    )


@pytest.mark.fault(58)
def test_the_form_keeps_what_was_typed(visit, pictures):
    """An error or a reload empties the form."""
    page = visit()
    page.locator("#set-rank input").fill("0")
    page.locator("#set-trigger").locator("input, textarea").fill("inkstyle")
    page.locator("#set-data").locator("input, textarea").fill(f'"{pictures}"')
    page.locator("#set-data").locator("input, textarea").press("Enter")
    expect(page.locator(".dataset")).to_contain_text("9 pictures train, 1 held out for validation.")
    page.locator("#start").click()
    expect(page.locator(".go .notice")).to_contain_text("1 setting to fix")
    expect(page.locator("#set-rank")).to_contain_text("Must be a whole number from 1 to 1,024; it is 0.")
    expect(page.locator("#set-rank input")).to_be_focused()
    assert page.locator("#set-trigger").locator("input, textarea").input_value() == "inkstyle"
    settled(page, DRAFT)
    kept = page.evaluate(DRAFT)
    page.locator("#set-rank input").fill("12")
    expect(page.locator(".go .notice")).to_have_count(0)
    page.locator("#set-rank > .about").click()
    expect(page.get_by_role("heading", name="Rank:")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#all-settings > button")).to_contain_text("All settings · 1 changed")
    page.wait_for_function(f"kept => {DRAFT} !== kept", arg=kept)
    settled(page, DRAFT)
    page.reload()
    page.wait_for_selector("#start")
    expect(page.locator("#set-rank input")).to_have_value("12")
    expect(page.locator("#set-trigger").locator("input, textarea")).to_have_value("inkstyle")
    page.get_by_role("button", name="All settings").click()
    expect(page.locator("#changes .chip").first).to_contain_text("12")
    page.locator("#save-preset").click()
    expect(page.locator("#preset-name").locator("input, textarea")).to_be_focused()
    page.locator("#preset-name").locator("input, textarea").fill("Soft ink")
    page.locator("#store-preset").click()
    expect(page.locator("#preset input")).to_have_value("Yours: Soft ink")
    expect(page.locator("#changes")).to_be_hidden()
    settled(page, DRAFT)
    page.reload()
    page.wait_for_selector("#start")
    expect(page.locator("#preset input")).to_have_value("Yours: Soft ink")
    expect(page.locator("#set-rank input")).to_have_value("12")
    page.locator("#delete-preset").click()
    expect(page.locator("#preset input")).to_have_value("Quick look")
    expect(page.locator("#undo-preset")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="Soft ink is back.")).to_be_visible()
    expect(page.locator("#preset input")).to_have_value("Yours: Soft ink")
    expect(page.locator("#preset input")).to_be_focused()
    expect(page.locator("#undo-preset")).to_be_hidden()
    page.locator("#delete-preset").click()
    expect(page.get_by_role("status").filter(has_text="Soft ink is in the trash.")).to_be_visible()
    expect(page.locator("#preset input")).to_have_value("Quick look")
    expect(page.locator("#set-rank input")).to_have_value("12")
    page.get_by_role("button", name="All settings").click()
    page.locator("#reset").click()
    expect(page.locator("#changes")).to_be_hidden()


def test_passing_a_list_by_the_tab_key_chooses_nothing(visit):
    """The form's preset is chosen anew on the way from field to field, and takes back all that was typed."""
    page = visit()
    steps, preset, asked = page.locator("#set-steps input"), page.locator("#preset input"), []
    page.on("request", lambda request: asked.append(request.post_data or ""))
    preset.focus()
    page.keyboard.press("ArrowDown")
    with page.expect_response(lambda answer: '"data":["sdxl-style"]' in (answer.request.post_data or "")):
        page.keyboard.press("Enter")
    expect(steps).to_have_value("2000")
    steps.fill("7")
    asked.clear()
    preset.focus()
    page.keyboard.press("Shift+Tab")
    preset.focus()
    page.keyboard.press("Tab")
    with page.expect_response(lambda answer: '"data":[' in (answer.request.post_data or "")):
        page.locator("#set-trigger input").fill("inks")
    assert steps.input_value() == "7" and not any('"data":["sdxl-style"]' in one for one in asked)
    expect(page.locator(".options")).to_have_count(0)


def test_a_chosen_optimizer_brings_its_rates(visit):
    """One optimizer's rate destroys the picture under another, or learns nothing."""
    page = visit()
    rate, ratio = page.locator("#set-learning_rate"), page.locator("#set-lora_plus input")
    page.get_by_role("button", name="All settings").click()
    page.get_by_role("button", name="Optimizer").click()

    def choose_optimizer(title):
        page.locator("#set-optimizer input").click()
        page.get_by_role("option", name=title, exact=True).click()

    expect(rate.locator("input")).not_to_have_value("")
    rate_of_preset = rate.locator("input").input_value()
    choose_optimizer("Prodigy")
    expect(rate.locator("input")).to_have_value("1")
    expect(ratio).to_have_value("1")
    expect(rate).to_contain_text("Usual for Prodigy: 1.")
    expect(page.locator("#set-optimizer")).to_contain_text("Prodigy finds its own step size")
    rate.locator("input").fill("0.0002")
    expect(page.locator("#summary .warned")).to_contain_text("Prodigy will learn next to nothing")
    rate.locator("input").fill("0.5")
    expect(page.locator("#summary .warned")).to_have_count(0)
    expect(page.locator("#changes .chip").filter(has_text="Learning rate")).to_contain_text("0.5")
    assert rate.locator("input").input_value() == "0.5", "what was typed for the optimizer stays"
    choose_optimizer("Lion")
    expect(rate.locator("input")).to_have_value("0.00005")
    expect(page.locator("#set-text_learning_rate input")).to_have_value("0.00001")
    expect(page.locator("#set-text_learning_rate")).to_be_hidden()
    choose_optimizer("AdamW")
    expect(rate.locator("input")).to_have_value(rate_of_preset)
    expect(page.locator("#changes")).to_be_hidden()
    rate.locator("input").fill("1,000")
    expect(rate.locator("input")).to_have_attribute("aria-invalid", "true")
    expect(rate).to_contain_text("“1,000” can mean 1000 or 1: write which.")
    rate.locator("input").fill("0,0001")
    expect(page.locator("#changes .chip").filter(has_text="Learning rate")).to_contain_text("0.0001")
    assert rate.locator("input").input_value() == "0,0001" and rate.locator("[aria-invalid]").count() == 0

    search = page.get_by_role("searchbox", name="Search all settings")
    search.fill("lokr fact")
    expect(page.locator("#find-setting .found")).to_have_text("LoKr factor: Only where Method is LoKr.")
    search.fill("prodigy")  # a choice of the optimizer
    expect(page.locator("#set-optimizer")).to_be_visible()
    assert page.locator("[id^='set-'][data-found]").evaluate_all("all => all.map(one => one.id)") == ["set-optimizer"]
    others = page.locator("#set-batch").or_(page.locator("#group-adapter"))
    assert others.evaluate_all("all => all.map(one => one.offsetHeight)") == [0, 0]
    search.fill("no such thing")
    expect(page.locator("#find-setting .found")).to_have_text("No setting has “no such thing”.")
    search.press("Escape")
    expect(rate).to_be_visible()
    page.locator("#group-adapter .group-head").click()
    page.locator("#set-method input").click()
    page.get_by_role("option", name="LoKr", exact=True).click()
    expect(page.locator("#set-lokr_factor")).to_be_visible()
    expect(ratio).to_be_hidden()


@pytest.mark.fault(20)
def test_a_caption_is_never_markup_and_what_is_wrong_with_a_folder_is_said(visit, tmp_path, pictures):
    """A caption from the net runs as a script when its picture is opened; or training starts on a folder that has
    nothing to learn from.
    """
    page = visit()
    page.locator("#tab-pictures-button").click()
    page.locator("#pictures-path").locator("input, textarea").fill(f"'{pictures.as_uri()}'")
    page.locator("#open-folder").click()
    expect(page.locator("#folder-title")).to_contain_text("10 pictures")
    page.locator(".picture").first.click()
    expect(page.locator(".picture").first).to_contain_text("<img src=x onerror=")
    expect(page.locator("#caption-text")).to_have_value(re.compile("<img src=x onerror="))
    assert page.title() == "LoRA Studio"

    (tmp_path / "broken.png").write_bytes((pictures / "drawing 3.png").read_bytes()[:200])
    page.get_by_role("tab", name="Train").click()
    page.locator("#set-data").locator("input, textarea").fill(str(tmp_path))
    page.locator("#set-data").locator("input, textarea").press("Enter")
    expect(page.locator(".dataset")).to_contain_text("Cannot be read: 1")
    page.locator("#start").click()
    expect(page.locator(".go .notice")).to_contain_text("contains no picture that can be trained on")


def test_nothing_sticks_out(visit, studio, part):
    """The page scrolls sideways on a phone, or a long name hides how far the run is."""
    played = part("narrow-with-a-long-name-360", studio.outputs)
    played.begins()
    played.trains(1, 30)
    for step in (10, 20, 30):
        played.draws(step)
    page = visit(width=360, height=800)
    expect(page.locator(".sentence")).to_contain_text("step 30")
    expect(page.locator(".plot")).to_be_visible()
    parts = ".card, .pill, #start, #check-memory, .plot, .pair, .pill > :last-child"
    edges = f"Math.max(...[...document.querySelectorAll('{parts}')].map(part => part.getBoundingClientRect().right))"
    for width in (360, 390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function(f"{edges} <= {width} && document.documentElement.scrollWidth <= {width}")
        first = page.locator(".sentence").bounding_box()["y"] < page.locator("#set-data").bounding_box()["y"]
        assert first or width > 700, "On a phone the active run comes first."


def test_dark_and_light_follow_the_system(browser, studio):
    """The page blinds at night."""
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(f"{studio.url}#train")
    page.wait_for_selector("#start")
    red = "+getComputedStyle(document.querySelector('.card')).backgroundColor.match(/\\d+/)[0]"
    page.wait_for_function(f"{red} < 80")
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"{red} >= 80")
    context.close()


_SHIFTS = """
window.shifted = 0;
window.moved = [];
window.rooms = new Set();
setInterval(() => {
  const room = document.querySelector('#tabs [role="tab"][aria-selected="true"]');
  if (room?.checkVisibility({visibilityProperty: true})) window.rooms.add(room.textContent.trim());
}, 10);
new PerformanceObserver(list => {
  for (const one of list.getEntries()) {
    window.shifted += one.value;
    const told = one.sources.map(({node, previousRect, currentRect}) =>
      `${node?.id || node?.className || node?.nodeName} ${previousRect.y} to ${currentRect.y}`);
    window.moved.push(`${one.value}: ${told.join(', ')}`);
  }
}).observe({type: 'layout-shift', buffered: true});
"""


def test_the_page_is_light_and_does_not_jump(browser, studio, part):
    """What she is about to press moves away while the page loads, or at each step of a run."""
    played = part("steady", studio.outputs, steps=100, preview_every=10, evaluate_every=20)
    played.begins(total=100)
    played.trains(1, 10)
    played.draws(10)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script(_SHIFTS)
    network, loaded = page.context.new_cdp_session(page), []
    network.send("Network.enable")
    network.on("Network.loadingFinished", lambda one: loaded.append(one["encodedDataLength"]))
    page.goto(f"{studio.url}#train")
    expect(page.locator(".sentence")).to_contain_text("step 10", timeout=90_000)
    expect(page.locator(".film")).to_be_visible()
    page.wait_for_timeout(1500)
    while_loading = page.evaluate("shifted")
    played.trains(11, 20)
    played.draws(20)
    expect(page.locator(".sentence")).to_contain_text("step 20")
    expect(page.locator("#advice")).to_contain_text("the first one at step 20")
    page.evaluate("document.querySelector('#film').scrollIntoView({block: 'center'})")  # its new rows are in sight
    judged(played.run, 20, (75.0, 68.0, 84.0))
    expect(page.locator("#advice")).to_contain_text("Best so far")
    page.wait_for_timeout(1500)
    assert while_loading < 0.02 and page.evaluate("shifted") - while_loading < 0.02, page.evaluate("moved")
    assert page.evaluate("[...rooms]") == ["Train"], "another room was shown first"
    assert sum(loaded) < 1_000_000
    page.close()
