"""Help inside the page: short texts with pictures from ``docs/help``, opened by a (?) at the settings they are about.

They are part of the page and need no network. A link from one text to another stays in the dialog. A translation is a
file of the same name in the folder of its language, such as ``docs/help/de``; a text without one is shown in English.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from markdown_it import MarkdownIt
from PIL import Image

from lora_studio import language
from lora_studio.config.specs import SPECS
from lora_studio.language import tr
from lora_studio.ui import images, words
from lora_studio.ui.icons import icon

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("rank", "steps", "learning-rate", "dropout", "strength")
"""Names of the texts in ``docs/help``."""
TROUBLE = "troubleshooting"
"""The text by symptom, in ``docs`` itself."""
OF_SETTING = {
    "rank": "rank",
    "alpha": "rank",
    "steps": "steps",
    "epochs": "steps",
    "learning_rate": "learning-rate",
    "caption_dropout": "dropout",
    "dropout": "dropout",
}
"""Setting -> the text about it."""
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)]+)\)")
_ASIDE = re.compile(r"\s*[(（]\[[\w-]+\.md\]\([^)]+\)[)）]")
"""That a document says more, which the dialog does not hold."""
_PICTURE = re.compile(r"!\[([^\]]*)\]\((?:\.\./)?([\w-]+\.webp)\)")
"""A translation has the English text's pictures."""


def dialog(outputs: Path) -> str:
    """All texts in a dialog that shows one of them, as HTML; ``outputs`` is where copies of the pictures are kept."""
    texts = "".join(
        f'<article id="help-{name}" hidden>{_rendered(name, outputs)}</article>' for name in (*PAGES, TROUBLE)
    )
    others = "".join(f'<a href="#help-{name}">{_title(name)}</a>' for name in (*PAGES, TROUBLE))
    named, close, more = (words.text(text) for text in (tr("Help"), tr("Close"), tr("More help")))
    return (
        f'<dialog id="help" aria-label="{named}"><button type="button" class="out" data-close aria-label="{close}">'
        f'{icon("close")}</button>{texts}<nav aria-label="{more}">{others}</nav></dialog>'
    )


def _file(name: str) -> Path:
    """The text in the current language, else the English one."""
    translation = DOCS / "help" / language.current() / f"{name}.md"
    if translation.is_file():
        return translation
    return DOCS / f"{name}.md" if name == TROUBLE else DOCS / "help" / f"{name}.md"


def _title(name: str) -> str:
    """The text's heading."""
    return words.text(_source(name).partition("\n")[0].removeprefix("# "))


def _source(name: str) -> str:
    try:
        return _file(name).read_text("utf-8")
    except OSError:
        return f"# {name.capitalize()}\n\n{tr('This text is missing: download the studio again.')}"


def _rendered(name: str, outputs: Path) -> str:
    """The text as HTML, with addresses that the page serves."""
    text = _LINK.sub(_within, _ASIDE.sub("", _source(name)))
    text = _PICTURE.sub(lambda found: f"![{found[1]}]({_address(found[2], outputs)})", text)
    return MarkdownIt("commonmark", {"html": False}).enable("table").render(text).replace("<img", '<img loading="lazy"')


def _within(link: re.Match[str]) -> str:
    """A link to another text leads there; one to a document that is not in the dialog is its words alone."""
    name = Path(link[2].partition("#")[0]).stem
    return f"[{link[1]}](#help-{name})" if name in (*PAGES, TROUBLE) else link[1]


def _address(picture: str, outputs: Path) -> str:
    """Where the page serves a picture; nowhere if it is missing."""
    try:
        return images.address(images.copy(DOCS / "help" / picture, outputs, images.FULL, _opened))
    except OSError:
        return ""


def _opened(path: Path) -> Image.Image:
    with Image.open(path, formats=("WEBP",)) as image:
        return image.convert("RGB")


def script() -> str:
    """Puts a (?) at each field of ``OF_SETTING`` and opens the dialog; for ``gr.HTML(js_on_load=...)``."""
    about = {f"set-{key}": (page, tr("Help: {label}", label=SPECS[key].label)) for key, page in OF_SETTING.items()}
    return f"const ABOUT = {json.dumps(about)};{_SCRIPT}"


_SCRIPT = """
const dialog = element.querySelector('#help');
const show = name => {
  for (const one of dialog.querySelectorAll('article')) one.hidden = one.id !== `help-${name}`;
  for (const one of dialog.querySelectorAll('nav a')) one.ariaCurrent = `${one.hash === `#help-${name}`}`;
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
};
const place = () => {
  for (const [id, [page, label]] of Object.entries(ABOUT)) {
    const field = document.getElementById(id);
    if (!field || field.querySelector(':scope > .about')) continue;
    const button = document.createElement('button');
    Object.assign(button, {type: 'button', className: 'about', textContent: '?'});
    button.dataset.help = page;
    button.ariaLabel = button.title = label;
    field.append(button);
  }
};
let due = false;
new MutationObserver(() => {
  if (due) return;
  due = true;
  setTimeout(() => { due = false; place(); }, 200);
}).observe(document.body, {childList: true, subtree: true});
place();
document.addEventListener('click', event => {
  const asked = event.target.closest?.('[data-help]');
  const link = event.target.closest?.('a[href^="#help-"]');
  if (!asked && !link) return;
  event.preventDefault();
  show(asked ? asked.dataset.help : link.hash.slice(6));
});
dialog.addEventListener('click', event => {
  if (event.target === dialog || event.target.closest('[data-close]')) dialog.close();
});
"""
