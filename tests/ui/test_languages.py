"""The page in other languages: everything that is shown can be translated, and each reader gets her own language."""

from __future__ import annotations

import gettext
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from lora_studio import adapters, runs
from lora_studio.language import catalogue
from lora_studio.ui import studio as address
from tests.adapters.adapter_samples import small
from tests.ui.played import Part, judged, save
from tests.ui.test_axe import ROOMS, enter

_SHOWN = """
() => {
  const seen = new Set();
  const add = (text, where) => { if (text?.trim()) seen.add(`${text.trim()} @ ${where}`); };
  const path = one => `${one.closest('[id]')?.id ?? ''} ${one.tagName.toLowerCase()}.${one.className?.baseVal ?? one.className}`;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!one.closest('script, style, [translate="no"], option[lang], svg:not([role])') && one.checkVisibility())
      add(walker.currentNode.data, path(one));
  }
  for (const name of ['aria-label', 'title', 'alt', 'placeholder'])
    for (const one of document.querySelectorAll(`[${name}]`))
      if (!one.closest('[translate="no"]') && one.checkVisibility()) add(one.getAttribute(name), `${path(one)} ${name}`);
  return [...seen];
}
"""


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
def marked(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Page, Path]]:
    """The page of a studio whose every translation is marked, and its outputs."""
    monkeypatch.setattr(catalogue, "translations", lambda language: Marked())
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    port = address.free_port("127.0.0.1", 8940)
    built = address.serve(address.build(outputs), outputs, "127.0.0.1", port)
    context = browser.new_context(locale="de-DE", viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(90_000)
    yield page, outputs, f"http://127.0.0.1:{port}/"
    context.close()
    built.close()


_NAMES = re.compile(r"LoRA Studio|seen-by-all|inkstyle")


def test_all_that_is_shown_can_be_translated(marked, part):
    """A sentence stays English in every language, since it was never given to the catalogues."""
    page, outputs, url = marked
    played = part("seen-by-all", outputs, trigger="inkstyle")
    played.begins(total=40)
    played.trains(1, 40)
    for step in (20, 40):
        played.draws(step)
        judged(played.run, step, (70.0 + step / 4, 68.0, 84.0))
    save(played.run, 20, 40)
    folder = runs.library_folder(outputs)
    folder.mkdir(exist_ok=True)
    adapters.write(small(), folder / "seen-by-all.safetensors")
    played.finishes(40)
    page.goto(f"{url}#train")
    page.wait_for_selector("#start")
    expect(page.locator(".sentence")).to_contain_text("Finished")
    left = []
    for room in ROOMS:
        enter(page, room)
        page.wait_for_timeout(1500)
        left += [f"{room}: {one}" for one in page.evaluate(_SHOWN)]
    page.screenshot(path="/tmp/marked.png", full_page=True)
    bad = {one.split(": ",1)[1]: one for one in left if re.search(r"[A-Za-z]{2}", unmarked(one.split(": ",1)[1].rsplit(" @ ", 1)[0]))}
    Path("/tmp/bad.txt").write_text("\n".join(bad.values()))
    assert not bad
