"""The whole way by the keyboard alone, in German and in the dark: from a sample to a file that is proved."""

import re

from playwright.sync_api import expect

from lora_studio.runs import Run
from tests.ui import looks
from tests.ui.looks import reach
from tests.ui.played import PATIENCE, until


def test_the_whole_way_by_keys_in_german(browser, studio):
    """A part of the way needs a mouse, or works in English alone."""
    context = browser.new_context(locale="de-DE", color_scheme="dark", viewport={"width": 1280, "height": 900})
    context.set_default_timeout(90_000)
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{studio.url}#train")
    page.wait_for_selector("#start")
    press, key = page.keyboard.press, page.keyboard

    reach(page, page.locator("#tab-train-button"))
    press("ArrowLeft")
    press("Enter")
    expect(page.locator("#tab-pictures-button")).to_have_text("Bilder")
    sample = page.get_by_role("button", name="Ink icons")
    reach(page, sample)
    press("Enter")
    expect(page.locator("#folder-title")).to_contain_text("ink-icons")
    expect(page.locator("#folder-title")).to_contain_text("Bilder")
    reach(page, page.locator("#train-these"))
    press("Enter")
    expect(page.locator("#set-data").locator("input, textarea")).to_have_value(re.compile("ink-icons$"))
    for field, typed in (("set-name", "ohne maus"), ("set-steps", "6"), ("set-preview_prompts", "Apfel")):
        reach(page, page.locator(f"#{field}").locator("input, textarea"))
        press("ControlOrMeta+a")
        key.type(typed)
    reach(page, page.locator("#start"))
    expect(page.locator("#start")).to_contain_text("Training starten")
    press("Enter")
    expect(page.locator(".sentence")).to_contain_text("Fertig", timeout=PATIENCE)

    run = Run(studio.outputs / "ohne-maus")
    reach(page, page.locator(".film"))
    press("End")
    keep = page.locator('.film-head [data-act="keep"]')
    expect(keep).to_have_attribute("data-step", "6")
    reach(page, keep, "Shift+Tab")
    press("Enter")
    until(run.kept_file(6).is_file)
    reach(page, page.locator("#tab-train-button"), "Shift+Tab")
    for _ in range(4):
        press("ArrowRight")
    press("Enter")
    expect(page.locator("#tab-export-button")).to_have_attribute("aria-selected", "true")
    reach(page, page.locator("#export-adapter input"))
    key.type("ohne-maus-6")
    press("Enter")
    expect(page.locator("#export-facts")).to_contain_text("Rang")
    reach(page, page.locator("#export-now"))
    press("Enter")
    expect(page.locator("#outcome .proof")).to_contain_text("ComfyUI", timeout=PATIENCE)
    expect(page.locator("#outcome .proof td.failed")).to_have_count(0)
    expect(page.locator(".options")).to_have_count(0)  # no list of choices lies over the form
    looks.at_widths(page, "de-dark", (1920, 1024, 390))
    context.close()
    assert not faults
