"""The library in a real browser, with the real commands on small adapters."""

import re
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from lora_studio import adapters, runs
from lora_studio.adapters import recipe
from lora_studio.config.settings import Settings
from tests.adapters.adapter_samples import small
from tests.ui.played import PATIENCE, until

WORKING = {"timeout": PATIENCE}
"""How long a command may take beside everything else that a test machine does."""


@pytest.fixture
def shelf(studio, tmp_path) -> Path:
    """The library's folder, empty again after each test. Runs of other tests are no part of the library meanwhile."""
    aside = {run.folder: tmp_path / "aside" / run.folder.name for run in runs.existing(studio.outputs)}
    (tmp_path / "aside").mkdir()
    for here, there in aside.items():
        here.rename(there)
    folder = runs.library_folder(studio.outputs)
    yield folder
    for path in folder.glob("*.safetensors"):
        path.unlink()
    for here, there in aside.items():
        there.rename(here)


def opened(visit, address: str = "library", **size):
    """The page in that room."""
    page = visit(**size)
    page.goto(f"{page.url.partition('#')[0]}#{address}")
    expect(page.locator("#search")).to_be_visible()
    return page


def typed(page, words: str):
    page.locator("#search").locator("input, textarea").fill(words)


@pytest.mark.fault(23, 27)
def test_what_is_dropped_is_taken_or_refused_by_name(visit, shelf, tmp_path):
    """A pickle is opened, or one bad file keeps the others out."""
    good = adapters.write(
        small(),
        tmp_path / "rain.safetensors",
        metadata={"modelspec.title": "Rain <b>here</b>", "modelspec.trigger_phrase": "rainstyle"},
    )
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:-9])
    (tmp_path / "old.ckpt").write_bytes(b"\x80\x02}")
    page = opened(visit)
    page.locator("#drop input[type=file]").set_input_files([good, tmp_path / "cut.safetensors", tmp_path / "old.ckpt"])
    taken = page.locator("#taken")
    expect(taken).to_contain_text("1 adapter in the library.", **WORKING)
    expect(taken.locator(".wrong")).to_have_count(2)
    expect(taken).to_contain_text("cut.safetensors")
    expect(taken).to_contain_text("pickle")
    card = page.locator(".adapter", has_text="rain")
    expect(card).to_contain_text("rainstyle")
    expect(card).to_contain_text("Built-in starter")
    assert [path.name for path in shelf.iterdir()] == ["rain.safetensors"]


_BACK_AT_ONCE = """name => new MutationObserver((_, observer) => {
  if (document.querySelector('#facts h3')?.textContent !== name) return;
  observer.disconnect();
  window.addEventListener('popstate', () => { window.wentBack = true; }, {once: true});
  history.back();
}).observe(document.getElementById('facts'), {childList: true, subtree: true, characterData: true})"""
"""Goes back as soon as an adapter is shown, while the page still takes in the answer."""


def test_an_adapter_is_found_chosen_and_still_there_after_a_reload(visit, shelf):
    """The search forgets the choice, a reload lands in another room, or Back shows another adapter than the address
    says.
    """
    for name in ("rain", "snow", "sun"):
        adapters.write(small(), shelf / f"{name}.safetensors", metadata={"modelspec.title": name.title()})
    page = opened(visit)
    expect(page.locator("#adapters")).to_contain_text("snow")
    typed(page, "snow imported")
    expect(page.locator(".adapter")).to_have_count(1)
    page.locator(".adapter").click()
    expect(page.locator("#facts h3")).to_have_text("snow")
    expect(page.locator('.adapter[aria-current="true"]')).to_have_count(1)
    typed(page, "no such thing")
    expect(page.locator("#adapters")).to_contain_text("No adapter has all of “no such thing”")
    expect(page.locator("#facts h3")).to_have_text("snow")
    page.reload()
    expect(page.locator("#facts h3")).to_have_text("snow")
    page.evaluate(_BACK_AT_ONCE, "sun")
    page.locator(".adapter", has_text="sun").click()
    page.wait_for_function("window.wentBack")
    expect(page.locator("#facts h3")).to_have_text("snow")
    assert page.url.endswith("snow.safetensors")
    page.get_by_role("tab", name="Train").click()
    expect(page.locator("#start")).to_be_visible()
    page.reload()
    expect(page.locator("#start")).to_be_visible()
    expect(page.locator("#search")).to_be_hidden()


def test_an_adapter_is_shrunk_after_its_cost_is_known(visit, shelf):
    """A smaller copy is saved before anybody knows what it loses."""
    adapters.write(small(), shelf / "rain.safetensors")
    page = opened(visit, "library/library/rain.safetensors")
    page.get_by_role("button", name="Shrink").click()
    expect(page.locator("#save-smaller")).to_be_hidden()

    def typed_zero() -> bool:  # the form that has just opened is given its first value
        page.locator("#value input").fill("0")
        page.wait_for_timeout(300)
        return page.locator("#value input").input_value() == "0"

    until(typed_zero)
    page.locator("#try").click()
    expect(page.locator("#shrunk .wrong")).to_contain_text("must be from 1 to 100")
    expect(page.locator("#save-smaller")).to_be_hidden()
    page.locator("#value input").fill("90")
    page.locator("#try").click()
    expect(page.locator("#shrunk .facts")).to_contain_text("of the change kept (residual 0.", **WORKING)
    page.locator("#save-smaller").click()
    expect(page.locator("#shrunk .right")).to_contain_text("Saved as rain-energy-90.safetensors.", **WORKING)
    expect(page.locator("#shrunk .passed")).to_have_count(2)
    expect(page.locator("#adapters")).to_contain_text("2 adapters")
    shrunk = adapters.read(shelf / "rain-energy-90.safetensors").factors
    assert shrunk.keys() >= small().factors.keys()
    added = shrunk.keys() - small().factors.keys()  # what diffusers' converter knows a text encoder by
    assert not any(shrunk[path].up.any() for path in added)
    page.get_by_role("link", name="Show it").click()
    expect(page.locator("#facts")).to_contain_text("rain-energy-90.safetensors")
    expect(page.locator("#shrunk")).to_be_hidden()


def test_what_it_changes_is_told_and_drawn(visit, shelf):
    adapters.write(small(), shelf / "rain.safetensors")
    page = opened(visit, "library/library/rain.safetensors")
    page.get_by_role("button", name="What it changes").click()
    page.locator("#analyse").click()
    expect(page.locator("#found .diagram")).to_have_count(3, **WORKING)
    expect(page.locator("#found .said")).to_contain_text("of the change")
    assert (
        page.locator("#found .diagram").first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    )
    chosen = page.locator("#blocks label:has(input:checked)").all_inner_texts()
    page.locator("#train-blocks").press("Enter")
    expect(page.get_by_role("status").filter(has_text="The form now trains these blocks only")).to_be_visible(**WORKING)
    page.get_by_role("button", name="All settings").click()
    page.get_by_role("button", name=re.compile("^Adapter")).click()
    names = [text.partition(" · ")[0].strip() for text in chosen]
    expect(page.locator("#set-blocks textarea")).to_have_value("\n".join(names))
    text = page.locator("#set-train_text input")
    expect(text).to_be_checked() if "text_encoder" in names else expect(text).not_to_be_checked()


def test_a_recipe_fills_the_form_and_says_what_it_cannot(visit, shelf):
    """A run from a recipe differs from the one that made it."""
    made = recipe.Training(
        settings={
            "rank": 24,
            "steps": 777,
            "trigger": "rain<b>style",
            "data": "clouds",
            "base": "starter",
            "preview_prompts": ["a", "b"],
        },
        base="starter",
    )
    adapters.write(small(), shelf / "rain.safetensors", metadata={recipe.KEY: recipe.dumps(made)})
    page = opened(visit, "library/library/rain.safetensors")
    page.locator("#open-recipe").click()
    expect(page.locator("#set-rank input")).to_have_value("24")
    expect(page.locator("#set-steps input")).to_have_value("777")
    expect(page.locator("#set-trigger").locator("input, textarea")).to_have_value("rain<b>style")
    expect(page.locator("#set-preview_prompts textarea")).to_have_value("a\nb")
    expect(page.locator(".go .right")).to_contain_text("choose the pictures (“clouds” at the time)")
    expect(page).to_have_url(re.compile("#train$"))


@pytest.mark.skipif(sys.platform != "linux", reason="the trash of another system is not set apart")
def test_a_deleted_adapter_can_be_brought_back_and_what_a_run_needs_cannot_be_deleted(visit, shelf, studio):
    """One click destroys an artist's work, or what a run goes on from."""
    run = runs.create(Settings(data="x", name="kept"), studio.outputs)
    adapters.write(small(), run.checkpoint(50) / "adapter.safetensors")
    adapters.write(small(), shelf / "rain.safetensors")
    data = (shelf / "rain.safetensors").read_bytes()
    page = opened(visit, "library/kept/checkpoints/step-50/adapter.safetensors")
    expect(page.locator("#facts h3")).to_have_text("kept, step 50")
    expect(page.locator("#delete")).to_be_hidden()
    rain = page.locator('.adapter[href$="/rain.safetensors"]')
    rain.click()
    page.locator("#delete").click()
    expect(page.locator(".sure")).to_contain_text("Move rain.safetensors to the trash?")
    page.locator("#keep").click()
    expect(page.locator("#trash")).to_be_hidden()
    assert (shelf / "rain.safetensors").exists()
    page.locator("#delete").click()
    page.locator("#trash").click()
    expect(page.get_by_text("Choose an adapter")).to_be_visible()
    expect(rain).to_have_count(0)
    page.wait_for_function("location.hash === '#library'")
    page.evaluate("location.hash = 'library/library/rain.safetensors'")
    expect(page.locator("#none-chosen .warned")).to_contain_text("There is no adapter rain any more.")
    assert not (shelf / "rain.safetensors").exists()
    assert (studio.trash / "files" / "rain.safetensors").read_bytes() == data
    page.locator("#undo-delete").click()
    expect(page.locator("#library-undo")).to_contain_text("rain is here again.")
    expect(rain).to_be_visible()
    assert (shelf / "rain.safetensors").read_bytes() == data


def test_nothing_sticks_out_and_a_large_library_comes_in_parts(visit, shelf):
    name = "a very long name without an end " * 5
    file = adapters.write(small(), shelf / f"{name}.safetensors")
    for number in range(60):
        (shelf / f"rain{number}.safetensors").write_bytes(file.read_bytes())
    page = opened(visit, f"library/library/{name}.safetensors", width=360, height=800)
    expect(page.locator("#facts")).to_contain_text("a very long name")
    expect(page.locator(".adapter")).to_have_count(48)
    page.locator("#more").click()
    expect(page.locator(".adapter")).to_have_count(61)
    expect(page.locator("#more")).to_be_hidden()
    parts = "[...document.querySelectorAll('.card, .adapter, .details, .way, #drop')]"
    edges = f"Math.max(...{parts}.map(part => part.getBoundingClientRect().right))"
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function(f"{edges} <= {width} && document.documentElement.scrollWidth <= {width}")
    page.locator(".adapter").last.scroll_into_view_if_needed()
    expect(page.locator("#facts h3")).to_be_in_viewport()
