"""Looks at the page's rooms: nothing is wider than the window, and a picture of each is kept for people to look at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

ROOMS = ("pictures", "train", "draw", "mix", "library", "export", "sweeps")
FOLDER = Path(os.environ.get("LORA_STUDIO_SCREENSHOTS") or Path(__file__).resolve().parents[2] / ".screenshots")
_WIDER = "() => document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"


def enter(page: Page, room: str) -> None:
    """Goes to a room by its address."""
    page.evaluate("room => { location.hash = room }", room)
    expect(page.locator(f"#tab-{room}-button")).to_have_attribute("aria-selected", "true")


def at_widths(page: Page, name: str, widths: Sequence[int]) -> None:
    """Every room at ``widths``, the largest first."""
    FOLDER.mkdir(exist_ok=True)
    wider = {}
    for room in ROOMS:
        page.set_viewport_size({"width": widths[0], "height": 900})
        enter(page, room)
        for width in widths:
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(80)
            if (more := page.evaluate(_WIDER)) > 0:
                wider[room, width] = more
            page.screenshot(path=FOLDER / f"{name}-{room}-{width}.jpg", quality=70)
    assert not wider, f"wider than the window, by pixels: {wider}"


def reach(page: Page, wanted: Locator, key: str = "Tab", most: int = 150) -> None:
    """Presses ``key`` until the focus is in ``wanted``, and is seen there."""
    for _ in range(most):
        if wanted.evaluate("one => one.contains(document.activeElement)"):
            return
        page.keyboard.press(key)
    raise AssertionError(f"{most} times {key} did not lead to {wanted}")
