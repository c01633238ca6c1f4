"""The field in which a picture's caption is edited. What is typed stays in the browser until it is in the file."""

from __future__ import annotations

from typing import NamedTuple

from lora_studio.curation.collection import Card
from lora_studio.language import in_sequence, tr
from lora_studio.ui import words

_HELP = tr("Describe what is there, not how it looks.")
_LINES = tr("Each line is a caption of its own; training takes one of them each time.")


class SaveOutcome(NamedTuple):
    """What became of a text that the browser sent.

    Attributes:
        turn: the number that came with it.
        saved: the caption as it is in the file now; None where it could not be saved.
        other: the caption that another program or tab wrote meanwhile, if that is why.
        why: the reason, as a sentence.
    """

    turn: str
    saved: str | None = None
    other: str | None = None
    why: str = ""


def html(card: Card, folder: str, most_tokens: int, answer: SaveOutcome | None = None) -> str:
    """The field with the caption of ``card``, and what became of what was sent."""
    data = {"name": card.name, "folder": folder, "caption": card.picture.caption}
    if answer:
        data["turn"] = answer.turn
        data |= {"failed": "yes"} if answer.saved is None else {"saved": answer.saved}
    told = "".join(f' data-{key}="{_attribute(value)}"' for key, value in data.items())
    lines = card.picture.caption.count("\n") + 1
    label, unsaved = words.text(tr("Caption")), words.text(tr("Not saved yet"))
    about = in_sequence([_HELP, *[_LINES] * (lines > 1), tr("Ctrl+Enter: next picture.")])
    return (
        f'<div class="caption-field"{told}><label for="caption-text">{label}</label>'
        '<textarea id="caption-text" rows="3" aria-describedby="caption-help caption-state"></textarea>'
        f'<p class="hint" id="caption-help">{words.text(about)}</p>'
        f'<p class="facts" id="caption-state"><span>{words.text(_tokens(card, most_tokens))}</span>'
        f'<span class="unsaved" role="status">{unsaved}</span></p>'
        f"{_failure(answer)}</div>"
    )


def _attribute(value: str) -> str:
    return words.text(value).replace("\n", "&#10;")


def _tokens(card: Card, most: int) -> str:
    lines = card.picture.caption.count("\n") + 1
    tokens = words.counted(card.tokens, "token")
    if card.tokens > most:
        tokens = tr("{tokens}, of which {most} are read", tokens=tokens, most=most)
    return tr("{lines} captions, the longest {tokens}", lines=lines, tokens=tokens) if lines > 1 else tokens


def _failure(answer: SaveOutcome | None) -> str:
    if answer is None or answer.saved is not None:
        return '<div class="caption-failure"></div>'
    if answer.other is None:
        said = words.notice("wrong", tr("Your text is not saved yet."), do=answer.why)
        return f'<div class="caption-failure">{said}</div>'
    what = tr("This caption was changed elsewhere while you wrote. Your text is not saved yet.")
    said = words.notice("warned", what, do=tr("There it now says: “{other}”.", other=answer.other))
    ways = "".join(
        f'<button type="button" class="way" data-act="{act}">{words.text(title)}</button>'
        for act, title in (("mine", tr("Save my text")), ("other", tr("Take the other")))
    )
    return f'<div class="caption-failure">{said}<p class="ways">{ways}</p></div>'


EDIT = """
const STORE = 'lora-studio-captions', PATIENCE = 15000;
const read = () => { try { return JSON.parse(sessionStorage.getItem(STORE)) || {}; } catch { return {}; } };
const drafts = read(), sent = {}, flying = {};
let shown = '', turn = Date.now(), next = false;
const box = () => element.querySelector('.caption-field'), field = () => element.querySelector('textarea');
const key = () => box() ? `${box().dataset.folder}/${box().dataset.name}` : '';
const mark = () => {
  try { sessionStorage.setItem(STORE, JSON.stringify(drafts)); } catch { /* it stays in memory */ }
  element.classList.toggle('has-draft', Boolean(drafts[shown]));
};
const write = text => {
  if (field().value === text) return;
  const focused = document.activeElement === field(), place = field().selectionStart;
  field().value = text;
  if (focused) field().setSelectionRange(place, place);
};
const send = (which, event) => {
  const draft = drafts[which];
  if (!draft || (flying[which] && Date.now() - flying[which] < PATIENCE)) return false;
  const number = String(++turn);
  sent[number] = {which, ...draft};
  flying[which] = Date.now();
  trigger(event, {...draft, turn: number});
  return true;
};
const answered = () => {
  const {turn: number, saved, failed} = box().dataset, was = sent[number];
  if (!was) return;
  delete sent[number];
  delete flying[was.which];
  const draft = drafts[was.which];
  if (!draft) return;
  if (failed) { if (draft.before !== was.before) send(was.which, 'input'); }  // she chose hers meanwhile
  else if (draft.text === was.text) delete drafts[was.which];
  else { draft.before = saved; send(was.which, 'input'); }
};
const show = () => {
  if (!box()) return;
  answered();
  const now = key(), other = now !== shown;
  if (other) send(shown, 'input');
  shown = now;
  if (other || !drafts[now]) write(drafts[now] ? drafts[now].text : box().dataset.caption);
  if (other && next) { field().focus(); field().setSelectionRange(field().value.length, field().value.length); }
  if (other) next = false;
  mark();
};
element.addEventListener('input', () => {
  const text = field().value, before = drafts[shown]?.before ?? box().dataset.caption;
  if (text === before && !flying[shown]) delete drafts[shown];
  else drafts[shown] = {name: box().dataset.name, text, before};
  mark();
});
element.addEventListener('focusout', () => send(shown, 'input'));
element.addEventListener('keydown', event => {
  if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  next = true;
  if (!send(shown, 'submit')) trigger('submit', {name: box().dataset.name});
});
element.addEventListener('click', event => {
  const act = event.target.closest('[data-act]')?.dataset.act;
  if (!act) return;
  if (act === 'mine') {
    drafts[shown].before = box().dataset.caption;
    send(shown, 'input');
  } else {
    delete drafts[shown];
    write(box().dataset.caption);
    trigger('input', {name: box().dataset.name});
  }
  mark();
});
const warn = event => { if (element.isConnected && Object.keys(drafts).length) event.preventDefault(); };
window.addEventListener('beforeunload', warn);
watch('value', show);
show();
"""
"""Sends what was typed when the field is left and on Ctrl+Enter, with the text that it began from; keeps it until the
server says that it is saved; for ``gr.HTML(js_on_load=...)``.
"""
