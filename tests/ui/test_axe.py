"""Every room by the rules of axe-core (WCAG 2.2 AA and good practice), empty and with content, light and dark."""

from importlib.resources import files
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from lora_studio import adapters, runs
from lora_studio.ui import studio as address
from tests.adapters.adapter_samples import small
from tests.ui.looks import ROOMS, enter
from tests.ui.played import judged, save

AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
_COLOURS = ["color-contrast", "link-in-text-block"]
"""The rules that the theme decides; the others hold in both or in neither."""
_CHECK = """
async ([rules, within]) => {
  const ends = one => one.effect.getComputedTiming().endTime < Infinity;
  await Promise.allSettled(document.getAnimations().filter(ends).map(one => one.finished));  // colours fade
  const how = {resultTypes: ['violations'], ...(rules ? {runOnly: rules} : {})};
  const {violations} = await axe.run(within || document, how);
  const told = (rule, node) => `${rule}: ${node.html.slice(0, 200)} ${node.failureSummary}`;
  return violations.flatMap(one => one.nodes.map(node => told(one.id, node)));
}
"""


def faults(page: Page, within: str = "") -> list[str]:
    """What axe finds in what is shown, in both themes; with ``within``, in that part of the page."""
    found = page.evaluate(_CHECK, [None, within])
    for dark in (True, False):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
        if dark:
            found += page.evaluate(_CHECK, [_COLOURS, within])
    return found


@pytest.fixture
def empty(browser: Browser, tmp_path: Path):
    """The page of a studio in which nothing was done yet."""
    page = browser.new_page()
    page.set_default_timeout(90_000)
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    port = address.free_port("127.0.0.1", 8900)
    built = address.serve(address.build(outputs), outputs, "127.0.0.1", port)
    page.goto(f"http://127.0.0.1:{port}/#train")
    page.wait_for_selector("#start")
    yield page
    page.close()
    built.close()


def test_empty_rooms_say_what_to_do_and_axe_finds_nothing(empty):
    """A room without content leaves her alone, or some cannot use it."""
    empty.evaluate(AXE)
    said = {
        "train": "Press Start training",
        "draw": "press Draw",
        "mix": "No adapter yet? Train one",
        "library": "What you train appears here",
        "export": "press Export and prove",
        "sweeps": "press Start the sweep",
    }
    found = {}
    for room, words in said.items():
        enter(empty, room)
        expect(empty.locator(f"#tab-{room} :is(.blank, .guide):visible")).to_contain_text(words)
        found[room] = faults(empty, f"#tab-{room}" if found else "")
    assert found == dict.fromkeys(said, [])
    enter(empty, "library")
    empty.get_by_role("link", name="Train a style").click()
    expect(empty.locator("#tab-train-button")).to_have_attribute("aria-selected", "true")


def test_axe_finds_nothing_in_rooms_with_content(visit, studio, part):
    other = part("seen-too", studio.outputs, steps=30)
    other.begins(total=30)
    other.trains(1, 30)
    other.draws(20)
    other.finishes(30)
    played = part("seen-by-all", studio.outputs, trigger="inkstyle")
    played.begins(total=40)
    played.trains(1, 40)
    for step in (20, 40):
        played.draws(step)
        judged(played.run, step, (70.0 + step / 4, 68.0, 84.0))
    save(played.run, 20, 40)
    adapters.write(small(), runs.library_folder(studio.outputs) / "seen-by-all.safetensors")
    played.finishes(40)
    page = visit(width=1280, height=900)
    page.evaluate(AXE)
    expect(page.locator(".sentence")).to_contain_text("Finished")
    found = {}
    for room in ROOMS:
        enter(page, room)
        if room in ("pictures", "library"):
            page.locator({"pictures": ".picture", "library": ".adapter"}[room]).first.click()
            expect(page.locator({"pictures": "#caption-text", "library": "#facts"}[room])).to_be_visible()
        found[room] = faults(page, f"#tab-{room}" if found else "")
        if room == "library":
            page.locator("#tab-library [data-send]").first.click()
            expect(page.locator("#send[role=dialog]")).to_be_visible()
            found["send"] = faults(page, "#send")
            page.locator("#send-close").click()
            expect(page.locator("#send")).to_be_hidden()
    enter(page, "train")
    page.locator("#set-steps input").fill("2,5")
    page.get_by_role("button", name="All settings").click()
    page.locator("#group-optimizer .group-head").click()
    expect(page.locator("#set-steps")).to_contain_text("Must be a whole number")
    found["form"] = faults(page, "#tab-train")
    page.get_by_role("button", name="Keys").click()
    found["keys"] = faults(page, "#keys")
    page.keyboard.press("Escape")
    page.locator("#set-steps > .about").click()
    expect(page.locator("#help")).to_be_visible()
    found["help"] = faults(page, "#help")
    page.keyboard.press("Escape")
    page.locator("#open-runs").click()
    expect(page.locator("#runs li").nth(1)).to_be_visible()
    found["all runs"] = faults(page, "#tab-train")
    page.get_by_role("button", name="Compare: seen-by-all").click()
    page.get_by_role("button", name="With this: seen-too").click()
    expect(page.locator("#compared .curves")).to_be_visible()
    found["compared"] = faults(page, "#tab-train")
    assert found == dict.fromkeys(found, [])
