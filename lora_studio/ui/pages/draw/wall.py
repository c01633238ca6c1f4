"""The gallery as HTML: pages of small pictures, the latest first."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from PIL import Image

from lora_studio.language import tr
from lora_studio.runs.gallery import Drawn
from lora_studio.ui import images, words
from lora_studio.ui.icons import icon
from lora_studio.ui.pages.draw.sitting import Sitting

PAGE_SIZE = 48
SIDE = 320
"""Pixels of the longer side of a small picture."""
_FORMATS = ("PNG", "JPEG", "WEBP")
_MOST_PIXELS = 2**27


def empty(starred: bool = False) -> str:
    """What stands in place of pictures, or of ``starred`` ones, where there are none."""
    no_star = tr("No picture has a star yet: give one to those that you want to find again.")
    told = no_star if starred else tr("Every picture that you draw is kept here.")
    return f'<p class="hint">{words.text(told)}</p>'


def html(sitting: Sitting, found: Sequence[Drawn], outputs: Path) -> str:
    """The page of ``found`` that ``sitting`` is at."""
    if not found:
        return empty(sitting.starred)
    drawn = "".join(_card(sitting, one, outputs) for one in shown(sitting, found))
    return f'<div class="wall" data-one-stop>{drawn}</div>'


def shown(sitting: Sitting, found: Sequence[Drawn]) -> Sequence[Drawn]:
    """Those of the page that ``sitting`` is at; a page that is gone is the last one."""
    sitting.page = max(0, min(sitting.page, (len(found) - 1) // PAGE_SIZE))
    return found[sitting.page * PAGE_SIZE : (sitting.page + 1) * PAGE_SIZE]


def place(sitting: Sitting, found: Sequence[Drawn]) -> str:
    """Which of them are shown."""
    first = sitting.page * PAGE_SIZE + 1
    last = min(first + PAGE_SIZE - 1, len(found))
    return tr("{first:,} to {last:,} of {total:,}", first=first, last=last, total=len(found))


def make(found: Sequence[Drawn], outputs: Path) -> None:
    """Makes the small pictures that are missing, several at once; of a file that cannot be read there is none."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: _make(one.path, outputs), found))


def _make(path: Path, outputs: Path) -> None:
    with suppress(OSError):
        images.copy(path, outputs, SIDE, opened)


def opened(path: Path) -> Image.Image:
    """A picture as RGB.

    Raises:
        OSError: it is damaged, far too large, or no picture.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise OSError(f"{image.width} x {image.height} pixels are too many")
            return image.convert("RGB")
    except (Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise OSError(str(error)) from error


def _card(sitting: Sitting, one: Drawn, outputs: Path) -> str:
    name = words.text(one.name)
    chosen = ' aria-current="true"' if one.name in (sitting.chosen, sitting.other) else ""
    star = f'<i class="starred">{icon("star")}</i>' if one.starred else ""
    label = tr("{name}, with a star", name=name) if one.starred else name
    return (
        f'<button type="button" data-act="choose" data-name="{name}" title="{name}" aria-label="{label}"{chosen}>'
        f"{_image(one.path, outputs)}{star}</button>"
    )


def _image(path: Path, outputs: Path) -> str:
    try:
        copy = images.place(path, outputs, SIDE)
    except OSError:
        return "<span></span>"
    return f'<img src="{words.text(images.address(copy))}" alt="">' if copy.exists() else "<span data-wanted></span>"


ACT = """
element.addEventListener('click', event => {
  const pressed = event.target.closest('[data-act]');
  const {act, name = ''} = pressed?.dataset ?? {};
  if (pressed) trigger('click', {act, name, on: pressed.ariaPressed !== 'true'});
});
"""
"""Script that reports what was pressed, for ``gr.HTML(js_on_load=...)``."""

CHOOSE = (
    ACT
    + """
const ask = () => requestAnimationFrame(() => {
  if (element.querySelector('[data-wanted]')) trigger('play', {});
});
element.addEventListener('keydown', event => {
  const way = {ArrowLeft: 'previousElementSibling', ArrowRight: 'nextElementSibling'}[event.key];
  const next = way && event.target.closest('.wall > button')?.[way];
  if (next) { event.preventDefault(); next.focus(); next.click(); }
});
let kept;
const back = () => {
  if (kept && document.activeElement === document.body)
    element.querySelector(`[data-name="${CSS.escape(kept)}"]`)?.focus();
};
element.addEventListener('focusin', event => { kept = event.target.dataset?.name; });
watch('value', () => { ask(); requestAnimationFrame(back); });
ask();
"""
)
"""Script of the gallery: arrow keys choose the neighbours, and small pictures that are missing are asked for."""
