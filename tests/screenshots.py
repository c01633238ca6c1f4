"""Takes the documents' screenshots anew, from the real page.

    python -m tests.screenshots OUTPUTS [NAME ...]

OUTPUTS is a folder of runs whose latest has ended, as ``python3 app.py quickstart`` leaves one. Needs Chromium.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def _train(page: Page) -> None:
    page.get_by_text("Download the adapter").wait_for()


def _pictures(page: Page) -> None:
    page.get_by_role("button", name="Blueprint").first.click()
    page.locator("#folder-title").get_by_text("blueprint").first.wait_for()


SHOTS: dict[str, tuple[str, int, Callable[[Page], None]]] = {
    "studio.png": ("train", 1240, _train),
    "pictures.webp": ("pictures", 1100, _pictures),
}
"""Picture in ``docs`` -> the room that it shows, its height, and what is done there first."""
DRAWN = {
    "mix.webp": "docs/adapters.md",
    "sliders.webp": "docs/sliders.md",
    "style-learning.webp": "README.md",
}
"""Pictures that commands draw -> the document that says which."""
_WIDTH = 1440
_NO_PATHS = """
root => document.querySelectorAll('input, textarea').forEach(field => {
  field.value = field.value.replace(root, '~/lora-studio');
})
"""
"""A screenshot says nothing of the machine that it was taken on."""


def take(page: Page, url: str, name: str) -> None:
    """Takes one screenshot, once the room's pictures have come."""
    room, height, prepare = SHOTS[name]
    page.set_viewport_size({"width": _WIDTH, "height": height})
    page.goto(f"{url}#{room}")
    prepare(page)
    page.wait_for_timeout(4_000)  # the page keeps a stream open, so that it is never idle
    page.evaluate(_NO_PATHS, str(ROOT))
    with Image.open(io.BytesIO(page.screenshot())) as image:
        shown = image.convert("RGB")
        (shown.quantize(256) if name.endswith(".png") else shown).save(DOCS / name, quality=85, method=6, optimize=True)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("outputs", type=Path)
    ask.add_argument("names", nargs="*", help="only these")
    given = ask.parse_args()
    code = "import sys; from pathlib import Path; from lora_studio.ui.studio import launch; "
    code += "launch(None, False, Path(sys.argv[1]))"
    served = subprocess.Popen([sys.executable, "-c", code, given.outputs], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert served.stdout is not None
        url = served.stdout.readline().split()[-1]
        with sync_playwright() as playwright:
            program = os.environ.get("LORA_STUDIO_CHROMIUM") or shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            for name in given.names or SHOTS:
                take(browser.new_page(), url, name)
                print(name, flush=True)
            browser.close()
    finally:
        served.terminate()
        served.wait(10)


if __name__ == "__main__":
    main()
