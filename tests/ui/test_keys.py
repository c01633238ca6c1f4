"""The page without a mouse."""

from playwright.sync_api import expect

from lora_studio.jobs import control
from lora_studio.jobs.control import Request
from tests.ui.played import until

ROVING = """
<div id="made" data-roving style="position:fixed;inset:100px auto auto 100px;width:230px;z-index:999;background:white">
<button style="width:100px">a</button><button style="width:100px" aria-pressed="true">b</button>
<button style="width:100px">c</button><button style="width:100px">d</button></div>
"""
FOCUSED = "document.activeElement.textContent.trim()"


def test_the_page_is_worked_by_keys(visit, studio, part):
    """Without a mouse each card of a list is a stop on the way, or a run cannot be paused."""
    played = part("by-keys", studio.outputs)
    played.begins()
    played.trains(1, 5)
    page = visit()
    expect(page.locator("#pause")).to_be_visible()

    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the page")
    page.keyboard.press("Enter")
    expect(page.locator("#tab-train")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(page.locator("#tab-train-button")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tab-draw-button")).to_be_focused()
    page.get_by_text("Skip to the main button").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#start")).to_be_focused()
    page.get_by_text("Skip to the page").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("p")
    until(lambda: control.asked(played.run, Request.PREVIEW))
    page.keyboard.press("Space")
    until(lambda: control.asked(played.run, Request.PAUSE))

    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.get_by_label("Keys without Ctrl").uncheck()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_hidden()

    page.evaluate("html => document.querySelector('#tab-train').insertAdjacentHTML('afterbegin', html)", ROVING)
    expect(page.locator("#made [tabindex='0']")).to_have_text("b")
    page.locator("#made button").nth(1).focus()
    for key, name in (("ArrowRight", "c"), ("ArrowUp", "a"), ("ArrowDown", "c"), ("End", "d"), ("Home", "a")):
        page.keyboard.press(key)
        assert page.evaluate(FOCUSED) == name
    expect(page.locator("#made [tabindex='0']")).to_have_text("a")
    page.keyboard.press("Tab")
    assert page.evaluate("!document.activeElement.closest('#made')")


DRAWN = """
([part, html]) => {
  if (!document.getElementById(part)) document.body.insertAdjacentHTML('beforeend', `<div id="${part}"></div>`);
  document.getElementById(part).innerHTML = html;
}
"""


def test_a_control_that_is_drawn_anew_keeps_the_focus(visit):
    """A tick of a run draws its card anew between Tab and Enter, and Enter goes to nothing."""
    page = visit()
    keep, branch = (f'<p><button type="button" data-step="6">{name}</button></p>' for name in ("Keep", "Branch"))

    def draws(html: str, part: str = "drawn") -> None:
        page.evaluate(DRAWN, [part, html])

    draws(keep + branch)
    page.locator("#drawn button").nth(1).focus()
    draws(branch)
    assert page.evaluate(FOCUSED) == "Branch"
    draws("")
    draws(keep + branch)
    assert page.evaluate(FOCUSED) == "Branch"

    draws(keep)
    page.wait_for_timeout(1100)
    draws(keep + branch)
    assert page.evaluate("document.activeElement === document.body")  # it came back too late to be the same press

    page.locator("#drawn button").nth(1).focus()
    page.locator("#drawn button").nth(1).evaluate("one => one.blur()")
    page.wait_for_timeout(50)
    draws(keep + branch + keep)
    assert page.evaluate("document.activeElement === document.body")  # she left it herself

    draws(keep)
    page.locator("#drawn button").focus()
    draws(keep.replace('"6"', '"7"'))
    assert page.evaluate("document.activeElement === document.body")  # another step's


def test_the_focus_is_never_under_a_bar_and_targets_are_large_enough(visit):
    """What has the focus cannot be seen, or a finger meets its neighbour."""
    page = visit(width=390, height=844)
    page.locator("#set-rank input").focus()
    page.evaluate("scrollTo({top: 9999, behavior: 'instant'})")
    page.keyboard.press("Shift+Tab")
    bar, under = page.locator("#tabs > .tab-wrapper").bounding_box(), page.locator(":focus").bounding_box()
    go = page.locator(".go:visible").bounding_box()
    assert bar["y"] + bar["height"] <= under["y"] and under["y"] + under["height"] <= go["y"] + 20
    for main in ("#start", "#check-memory", "#tab-train-button", "#tab-sweeps-button"):
        box = page.locator(main).bounding_box()
        assert box["height"] >= 44 and box["x"] + box["width"] <= 390, main
    small = page.evaluate("""[...document.querySelectorAll('#tab-train :is(button, summary)')]
        .filter(one => one.checkVisibility()).map(one => [one.textContent, one.getBoundingClientRect()])
        .filter(([, box]) => Math.min(box.width, box.height) < 24).map(([text]) => text)""")
    assert small == []
