"""The pictures as cards: each with the part that is trained on, its caption, size and marks, as HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from lora_studio import language
from lora_studio.curation.collection import CROPPED, Card, Collection
from lora_studio.dataset import pictures
from lora_studio.errors import DatasetError
from lora_studio.language import tr
from lora_studio.ui import images, words
from lora_studio.ui.pages.pictures import findings
from lora_studio.ui.pages.pictures.look import PAGE_SIZE, PicturesLook

_LABELS = 3
"""Marks that a card names; the others are counted."""
_GOOD = frozenset(("mask", "own crop"))
"""Marks that are no problem."""
_TOLD = frozenset(("left out", "no caption", "several captions"))
"""Marks that the card shows in another way."""

_NAMED = {
    "long caption": tr("long caption"),
    "small": tr("small"),
    "mask": tr("mask"),
    "own crop": tr("own crop"),
}
"""Marks that a card itself has -> how it names them."""

CHOOSE = """
const all = () => [...element.querySelectorAll('.picture')];
const named = name => all().find(card => card.dataset.name === name);
const current = () => element.querySelector('.picture[aria-current="true"]');
const shown = () => element.checkVisibility();
const typing = target => target.closest?.('input, textarea, select, [contenteditable="true"]');
let anchor = '', asked = '', last = {at: 0};

const mark = () => {
  for (const one of all()) {
    const current = String(one.dataset.name === last.chosen);
    one.classList.toggle('selected', last.names.has(one.dataset.name));
    if (one.getAttribute('aria-current') !== current) one.setAttribute('aria-current', current);
  }
};

const choose = (card, how = 'one') => {
  const cards = all(), name = card.dataset.name;
  let names = new Set([name]), chosen = name;
  if (how === 'range') {
    const now = current()?.dataset.name;
    if (now && now !== last.chosen) anchor = now;  // the editor went on to another picture
    const ends = [cards.indexOf(named(anchor) || current() || card), cards.indexOf(card)].sort((a, b) => a - b);
    names = new Set(cards.slice(ends[0], ends[1] + 1).map(one => one.dataset.name));
  } else anchor = name;
  if (how === 'toggle') {
    names = new Set(cards.filter(one => one.classList.contains('selected')).map(one => one.dataset.name));
    if (!names.delete(name)) names.add(name);
    else chosen = [...names].pop() || '';
  }
  last = {names, chosen, at: performance.now()};
  mark();
  card.focus();
  const page = cards.map(one => one.dataset.name);
  trigger('click', {name: chosen, names: [...names], page, keep: how !== 'one', at: last.at});
};
element.addEventListener('click', event => {
  const card = event.target.closest('.picture');
  if (card) choose(card, event.shiftKey ? 'range' : event.ctrlKey || event.metaKey ? 'toggle' : 'one');
});

const edit = card => {
  if (card !== current()) choose(card);
  const name = card.dataset.name, until = Date.now() + 3000;
  const focus = () => {
    const field = [...document.querySelectorAll('.caption-field')].find(one => one.dataset.name === name);
    if (field) field.querySelector('textarea').focus();
    else if (Date.now() < until) setTimeout(focus, 60);
  };
  focus();
};
const move = (key, card) => {
  const cards = all(), at = cards.indexOf(card);
  const columns = Math.max(1, cards.filter(one => one.offsetTop === cards[0].offsetTop).length);
  const by = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns}[key];
  if (key === 'Home') return cards[0];
  if (key === 'End') return cards[cards.length - 1];
  if (at < 0) return cards[0];
  if (at + by >= cards.length && key === 'ArrowDown' && cards[cards.length - 1].offsetTop > card.offsetTop)
    return cards[cards.length - 1];
  if (!cards[at + by] && (key === 'ArrowRight' || key === 'ArrowLeft')) trigger('select', {by});
  return cards[at + by];
};
const key = event => {
  const command = event.ctrlKey || event.metaKey;
  if (!element.isConnected || !shown() || document.querySelector('dialog[open]')) return;
  if (event.key === 'Escape' && event.target.id === 'caption-text') return current()?.focus();
  if (typing(event.target)) return;
  if (command && ['z', 'y'].includes(event.key.toLowerCase())) {
    const again = event.shiftKey || event.key.toLowerCase() === 'y';
    document.getElementById(again ? 'redo' : 'undo')?.click();
    return event.preventDefault();
  }
  const card = event.target.closest?.('.picture');
  if (!card && event.target !== document.body) return;
  const at = card || current();
  if (/^(Arrow|Home$|End$)/.test(event.key) && !event.altKey && !command && all().length) {
    const next = move(event.key, at);
    if (next) choose(next, event.shiftKey ? 'range' : 'one');
  } else if (event.key === 'Enter' && at && !command) edit(at);
  else if (event.key === ' ' && card && command) choose(card, 'toggle');
  else if ((event.key === 'Delete' || event.key === 'Backspace') && at) event.repeat || trigger('delete');
  else if (event.key === 'Escape') trigger('clear');
  else if (event.key === 'a' && command && card) trigger('apply');
  else return;
  event.preventDefault();
};
window.addEventListener('keydown', key);

const settle = () => {
  if (Number(element.querySelector('.pictures')?.dataset.at) < last.at) mark();  // drawn before it heard of the choice
  const wanted = [...element.querySelectorAll('img[data-wanted]')].map(one => one.closest('.picture').dataset.name);
  const list = JSON.stringify(wanted);
  if (wanted.length && list !== asked && shown()) { asked = list; trigger('play'); }
};
const watched = ['aria-current', 'data-at', 'data-wanted'];
new MutationObserver(settle).observe(element, {childList: true, subtree: true, attributeFilter: watched});

let opened = false;
const open = () => {
  if (!window.formRestored || !element.isConnected || !shown()) return;
  opened = true;
  trigger('expand');
};
for (const name of ['form-restored', 'pictures-shown']) window.addEventListener(name, open);
open();
// a page that is first built as it is shown may have missed that event, and not yet be seen here
new IntersectionObserver((seen, observer) => {
  if (!opened) open();
  if (opened) observer.disconnect();
}).observe(element);
"""
"""Chooses and selects cards, by mouse and keyboard; for ``gr.HTML(js_on_load=...)``. Triggers ``click`` for a choice,
``select`` for another page, ``delete``, ``clear`` and ``apply`` for the selection, ``play`` where thumbnails are
missing, and ``expand`` when the page is to be filled.
"""


def html(look: PicturesLook, found: Sequence[Card], collection: Collection, outputs: Path) -> str:
    """The page of ``found`` that ``look`` shows."""
    if not collection.cards:
        return _nothing(tr("This folder has no picture yet. Drop some here, or open another folder."))
    if not found:
        return _nothing(tr("No picture has all that. Clear the search or choose another filter."))
    made = "".join(_card(card, look, outputs) for card in page(look, found))
    return f'<div class="pictures" data-one-stop data-at="{look.chosen_at}">{made}</div>'


def _nothing(why: str) -> str:
    return f'<p class="hint" role="status">{words.text(why)}</p>'


def page(look: PicturesLook, found: Sequence[Card]) -> Sequence[Card]:
    """The cards of ``found`` that are on the page."""
    return found[look.page * PAGE_SIZE : (look.page + 1) * PAGE_SIZE]


def missing(look: PicturesLook, shown: Sequence[Card], outputs: Path) -> list[Card]:
    """The cards without a thumbnail, apart from those that none could be made of."""
    return [card for card in shown if card.name not in look.gone and not _thumbnail_file(card, outputs).exists()]


def make_thumbnails(look: PicturesLook, wanted: Sequence[Card], outputs: Path) -> Iterator[None]:
    """Makes the thumbnails of ``wanted``, several at once, and yields after each. ``look`` keeps why one could not be
    made.
    """
    with ThreadPoolExecutor() as pool:
        work = {pool.submit(_thumbnail, card, outputs): card for card in wanted}
        for done in as_completed(work):
            if why := done.result():
                look.gone[work[done].name] = why
            yield


def _card(card: Card, look: PicturesLook, outputs: Path) -> str:
    """One card; its frame shows the part that is trained on."""
    name, selected = words.text(card.name), " selected" * (card.name in look.selected)
    size = f"{card.picture.width} × {card.picture.height}"
    sizes = f"<i>{words.text(size)}</i> <i>→ {words.text(card.bucket)}</i>"
    first, *others = (card.picture.caption or str(tr("no caption"))).split("\n")
    caption = words.text(first) + (f" <i>+ {len(others)}</i>" if others else "")
    classes = f"picture{selected}{' out' * card.left_out}{' bare' * (not card.picture.caption)}"
    current = str(card.name == look.chosen).lower()
    return (
        f'<button type="button" class="{classes}" data-name="{name}" aria-current="{current}" title="{name}">'
        f'{_picture(card, look, outputs)}<b>{caption}</b><span class="size">{sizes}</span>'
        f"{_labels(card)}</button>"
    )


def _labels(card: Card) -> str:
    if card.left_out:
        return f'<span class="marks">{words.text(tr("left out"))}</span>'
    marks = [_label(mark, card) for mark in sorted(card.marks - _TOLD)]
    more = [f"<i>+ {len(marks) - _LABELS}</i>"] if len(marks) > _LABELS else []
    labels = "".join(marks[:_LABELS] + more)
    return f'<span class="marks">{words.counted(card.tokens, "token")}{labels}</span>'


def _label(mark: str, card: Card) -> str:
    if mark == "cropped":
        named = tr("{share:.0%} cut off", share=1 - card.seen)
    else:  # the marks of a card are named for one picture, kinds of problems for several
        named = _NAMED.get(mark) or _within_a_line(findings.title(mark))
    plain = ' class="plain"' * (mark in _GOOD)
    return f"<i{plain}>{words.text(named)}</i>"


def _within_a_line(title: str) -> str:
    """A title as it is written elsewhere: other languages write both alike."""
    return str(title).lower() if language.current() == language.ENGLISH else str(title)


def _picture(card: Card, look: PicturesLook, outputs: Path) -> str:
    """The picture with a frame around the part that is trained on. A thumbnail that is still to be made is marked as
    wanted.
    """
    if why := look.gone.get(card.name):
        return f'<span class="view gone">{words.text(why)}</span>'
    target, shape = _thumbnail_file(card, outputs), f"aspect-ratio: {card.picture.width} / {card.picture.height}"
    wide = " wide" if card.picture.width >= card.picture.height else ""
    source = f'src="{words.text(images.address(target))}"' if target.exists() else "data-wanted"
    image = f'<img {source} alt="" draggable="false">'
    return f'<span class="view"><span class="whole{wide}" style="{shape}">{image}{_frame(card)}</span></span>'


def _thumbnail_file(card: Card, outputs: Path) -> Path:
    return pictures.thumbnail_file(_folder(outputs), images.PICTURE, card.picture.sha256)


def _folder(outputs: Path) -> Path:
    return images.folder(outputs) / "pictures"


def _thumbnail(card: Card, outputs: Path) -> str:
    """Makes a thumbnail; why not, if the file is gone, damaged or another one."""
    try:
        made = pictures.thumbnail(card.picture.path, _folder(outputs), images.PICTURE, card.picture.sha256)
    except DatasetError as error:
        return error.what
    return "" if made == _thumbnail_file(card, outputs) else tr("The picture was changed. Open the folder again.")


def _frame(card: Card) -> str:
    if card.seen > 1 - CROPPED:
        return ""
    width, height = card.picture.width, card.picture.height
    left, top, right, bottom = card.box
    inset = (top / height, 1 - right / width, 1 - bottom / height, left / width)
    return f'<i class="crop" style="inset: {" ".join(f"{share:.2%}" for share in inset)}"></i>'
