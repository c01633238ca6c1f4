"""The page in other languages: everything that is shown can be translated, and each reader gets her own language."""

from __future__ import annotations

import gettext
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from lora_studio import adapters, runs
from lora_studio.language import catalogue
from lora_studio.starter import sample_styles
from lora_studio.ui import studio as address
from tests.adapters.adapter_samples import small
from tests.ui.looks import enter
from tests.ui.played import judged, save

_SHOWN = """
() => {
  const blocks = 'p, li, td, th, dt, dd, h1, h2, h3, h4, button, a, summary';
  const seen = new Set();
  const add = text => { if (/[a-z]{2}/i.test(text ?? '')) seen.add(text.trim()); };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim()) continue;
    if (one.closest('script, style, .languages, #drop') || !one.checkVisibility()) continue;
    add((one.closest(blocks) ?? one).textContent);
  }
  for (const name of ['aria-label', 'title', 'alt', 'placeholder'])
    for (const one of document.querySelectorAll(`[${name}]`))
      if (!one.closest('#drop') && one.checkVisibility()) add(one.getAttribute(name));
  return [...seen];
}
"""
"""The texts that are shown, each with the markup within it left out; without those that gradio says itself."""
_NAMES = re.compile(
    r"LoRA Studio|seen-by-all(\.safetensors)?|a cat|<b>a house</b>|\d+ KB|MB|CPU, fp32|~?/?[\w/]*my-style|"
    r"\d+\. \w+\.? \d{4}"
)
"""What is the same in every language."""


class Marked(gettext.NullTranslations):
    """Marks whatever is translated, instead of translating it."""

    def gettext(self, message: str) -> str:
        return f"⟦{message}⟧"

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return f"⟦{msgid1 if n == 1 else msgid2}⟧"


def unmarked(shown: str) -> str:
    """What of a text is in no translation.

    >>> unmarked("⟦Step ⟦4⟧⟧ of ten")
    ' of ten'
    """
    depth, rest = 0, ""
    for sign in shown:
        depth += (sign == "⟦") - (sign == "⟧")
        rest += sign if depth == 0 and sign != "⟧" else ""
    return rest


@pytest.fixture
def marked(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Page]]:
    """Opens the page of a studio whose every translation is marked; its outputs are in ``outputs``."""
    monkeypatch.setattr(catalogue, "translations", lambda language: Marked())
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    port = address.free_port("127.0.0.1", 8940)
    built = address.serve(address.build(outputs), outputs, "127.0.0.1", port)
    context = browser.new_context(locale="de-DE", viewport={"width": 1280, "height": 900})
    context.set_default_timeout(90_000)

    def opened() -> Page:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/#train")
        page.wait_for_selector("#start")
        return page

    yield opened
    context.close()
    built.close()


def _sample_words() -> list[str]:
    """What the page Pictures shows of the samples: their folders, the names of their files and their captions."""
    folders = sample_styles()
    words = {path.stem for folder in folders for path in folder.iterdir()} | {
        "png",
        "Blueprint",
        "Ink icons",
        *(one.name for one in folders),
    }
    words |= {path.read_text("utf-8").strip() for folder in folders for path in folder.glob("*.txt")}
    return [re.escape(str(folders[0].parent)), *map(re.escape, sorted(words, key=len, reverse=True))]


def test_all_that_is_shown_can_be_translated(marked, part, tmp_path):
    """A sentence stays English in every language, since it was never given to the catalogues."""
    outputs = tmp_path / "outputs"
    played = part("seen-by-all", outputs, trigger="inkstyle")
    played.begins(total=40)
    played.trains(1, 40)
    for step in (20, 40):
        played.draws(step)
        judged(played.run, step, (70.0 + step / 4, 68.0, 84.0))
    save(played.run, 20, 40)
    runs.library_folder(outputs).mkdir(exist_ok=True)
    adapters.write(small(), runs.library_folder(outputs) / "seen-by-all.safetensors")
    played.finishes(40)
    page = marked()
    names = re.compile("|".join([_NAMES.pattern, *_sample_words()]))
    expect(page.locator(".sentence")).to_contain_text("Finished")
    shown = {
        "pictures": "#pictures-path", "train": ".sentence", "draw": "#draw-prompt", "mix": "#tab-mix .blank",
        "library": ".adapter", "export": "#tab-export .blank", "sweeps": "#tab-sweeps .blank",
    }  # fmt: skip
    texts = set()
    for room, sign in shown.items():
        enter(page, room)
        expect(page.locator(sign).first).to_be_visible()
        page.wait_for_timeout(500)
        texts |= set(page.evaluate(_SHOWN))
    left = {one for one in texts if re.search(r"[A-Za-z]{2}", names.sub("", unmarked(one)))}
    assert left == set() and len(texts) > 200


def test_each_reader_gets_her_language_and_can_choose_another(browser, studio, part):
    """German is answered in the words of whoever came first, or a choice is forgotten by the next page."""
    played = part("read-by-two", studio.outputs)
    played.begins(total=40)
    played.trains(1, 3)
    contexts = [browser.new_context(locale=locale) for locale in ("de-AT", "fr-FR")]
    try:
        german, french = (one.new_page() for one in contexts)
        for page in (german, french):
            page.set_default_timeout(90_000)
            page.goto(f"{studio.url}#train")
        for page, start, code in (
            (german, "Einreihen", "de"),
            (french, "Queue after", "en"),
        ):
            expect(page.locator("#start")).to_contain_text(start)
            expect(page.locator("html")).to_have_attribute("lang", code)
        said = {"de": "Schritt 3 von 40", "en": "Training step 3 of 40"}
        for page, code in ((german, "de"), (french, "en")):
            expect(page.locator(".sentence")).to_contain_text(re.compile(said[code]))
        french.locator("#set-steps input").fill("77")
        french.locator("#set-steps input").press("Tab")
        french.get_by_label("Language").select_option("简体中文")
        expect(french.locator("html")).to_have_attribute("lang", "zh")
        expect(french.get_by_label("语言")).to_have_value("zh")
        expect(french.locator("#set-steps input")).to_have_value("77")
        french.reload()
        expect(french.locator("html")).to_have_attribute("lang", "zh")
        expect(german.locator("html")).to_have_attribute("lang", "de")
    finally:
        for one in contexts:
            one.close()
