"""What stands at the fields of settings besides their help: what is wrong with what was typed, how many of a group were
changed, and which fields are hidden because they have no effect. And the search over all of them.

All of it is one component of JSON, which a script places at the fields. A message for each of a hundred fields would be
a hundred components, each looked up at every event.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS, Spec
from lora_studio.dataset import buckets
from lora_studio.language import ENGLISH, current, english, tr
from lora_studio.optim import registry as optimizers
from lora_studio.ui import words
from lora_studio.ui.fields import FormReading
from lora_studio.ui.scene.base_look import BaseLook

_PLACE = """
const words = %(words)s;
const form = document.getElementById('train-form');
const field = key => document.getElementById(`set-${key}`);
let told = {wrong: {}, warned: {}, told: {}, idle: {}, changed: []};
const say = (block, key) => {
  const what = told.wrong[key] ?? told.warned[key] ?? told.told[key] ?? '';
  const old = block.querySelector(':scope > .beside');
  const typed = block.querySelector('input, textarea');
  if (typed && block.classList.contains('number')) typed.inputMode = 'decimal';
  if (typed) key in told.wrong ? typed.setAttribute('aria-invalid', 'true') : typed.removeAttribute('aria-invalid');
  block.toggleAttribute('data-wrong', key in told.wrong);
  if (!what) { old?.remove(); typed?.removeAttribute('aria-describedby'); return; }
  const note = old ?? document.createElement('p');
  if (note.textContent !== what) note.textContent = what;
  note.className = key in told.wrong ? 'beside' : key in told.warned ? 'beside warned' : 'beside told';
  note.id = `beside-${key}`;
  note.setAttribute('role', 'status');
  if (!old) block.append(note);
  typed?.setAttribute('aria-describedby', note.id);
};
const place = () => {
  for (const block of form.querySelectorAll('[id^="set-"]')) {
    const key = block.id.slice(4);
    if (told.idle?.[key] && !(key in told.wrong)) block.setAttribute('data-idle', told.idle[key]);
    else block.removeAttribute('data-idle');
    say(block, key);
  }
  for (const group of form.querySelectorAll('.group')) {
    const blocks = [...group.querySelectorAll('[id^="set-"]')];
    const count = blocks.filter(block => told.changed.includes(block.id.slice(4))).length;
    const wrong = blocks.some(block => block.dataset.wrong !== undefined);
    group.toggleAttribute('data-idle', blocks.length > 0 && blocks.every(block => block.dataset.idle));
    const shown = group.querySelector('.count');
    const text = wrong ? words.wrong : count ? words.changed.replace('{count}', count) : '';
    if (shown && shown.textContent !== text) shown.textContent = text;
    shown?.classList.toggle('wrong', wrong);
  }
  window.dispatchEvent(new Event('fields-noted'));
};
const read = () => {
  const source = element.querySelector('[data-told]');
  if (!source) return;
  const next = JSON.parse(source.dataset.told);
  told = {...next, idle: next.idle ?? told.idle};
  place();
};
let due = 0;
const soon = () => { due ||= requestAnimationFrame(() => { due = 0; place(); }); };
const isField = node => node.matches?.('[id^="set-"]') || node.querySelector?.('[id^="set-"]');
new MutationObserver(changes => {
  if (changes.some(one => [...one.addedNodes].some(isField))) soon();
}).observe(form, {childList: true, subtree: true});
watch('value', () => requestAnimationFrame(read));
read();
"""

FOCUS = """
const focusSetting = async key => {
  const field = () => document.getElementById(`set-${key}`), fold = document.querySelector('#all-settings > button');
  const search = document.querySelector('#find-setting input');
  if (search?.value) { search.value = ''; search.dispatchEvent(new Event('input')); }
  if (!field()?.checkVisibility() && !fold.classList.contains('open')) fold.click();
  for (let wait = 0; wait < 40 && !field()?.checkVisibility(); wait += 1) {
    field()?.closest('.group:not([data-open])')?.querySelector('.group-head').click();
    await new Promise(done => setTimeout(done, 50));
  }
  field()?.querySelector('input, textarea')?.focus();
};
"""
"""A function that puts the focus on the field of a setting, and opens the folds that it is in."""

FOLD = """
const head = element.querySelector('button'), group = element.closest('.group');
head.addEventListener('click', () => {
  head.setAttribute('aria-expanded', group.toggleAttribute('data-open'));
});
"""
"""Folds and unfolds a group; for ``gr.HTML(js_on_load=...)``."""

_SEARCH = """
const words = %(words)s;
const all = document.getElementById('all-settings'), typed = element.querySelector('input');
const said = element.querySelector('.found'), also = JSON.parse(typed.dataset.also);
const title = block => block.querySelector('[data-testid="block-info"], .label-text')?.textContent.trim() ?? '';
const find = () => {
  const wanted = typed.value.toLowerCase().split(/\\s+/).filter(Boolean), hidden = [];
  let count = 0;
  if (wanted.length && !all.hasAttribute('data-searching')) element.scrollIntoView({block: 'start'});
  all.toggleAttribute('data-searching', wanted.length > 0);
  for (const group of all.querySelectorAll('.group')) {
    const name = group.querySelector('.group-head')?.textContent ?? '';
    let any = false;
    for (const block of group.querySelectorAll('[id^="set-"]')) {
      const key = block.id.slice(4);
      const text = [key, key.replaceAll('_', ' '), also[key] ?? '', name, block.textContent].join(' ').toLowerCase();
      const found = wanted.length > 0 && wanted.every(word => text.includes(word));
      block.toggleAttribute('data-found', found);
      if (found && block.dataset.idle) hidden.push(`${title(block)}: ${block.dataset.idle}`);
      else if (found) { any = true; count += 1; }
    }
    group.toggleAttribute('data-found', any);
  }
  const lines = hidden.slice(0, 6);
  if (wanted.length && !count && !hidden.length) lines.push(words.none.replace('{typed}', () => typed.value.trim()));
  said.replaceChildren(...lines.map(line => Object.assign(document.createElement('p'), {textContent: line})));
};
typed.addEventListener('input', find);
typed.addEventListener('keydown', event => {
  if (event.key === 'Escape' && typed.value) { typed.value = ''; find(); event.stopPropagation(); }
});
window.addEventListener('fields-noted', () => { if (element.isConnected && typed.value) find(); });
"""


def place() -> str:
    """Places ``notes`` at the fields, also at those that the page makes later; for ``gr.HTML(js_on_load=...)``."""
    return _PLACE % {"words": words.script({"wrong": tr("to fix"), "changed": tr("{count} changed")})}


def searching() -> str:
    """Shows the settings that have all words of the search, and why others that have them are hidden; for
    ``gr.HTML(js_on_load=...)``.
    """
    return _SEARCH % {"words": words.script({"none": tr("No setting has “{typed}”.")})}


def notes(reading: FormReading, changed: Iterable[str], base: BaseLook | None = None) -> str:
    """What ``PLACE`` places, as HTML: of what was read, the settings that were ``changed``, and the base model."""
    usable = reading.usable
    rate = optimizers.rate_warning(usable.optimizer) if usable and "learning_rate" not in reading.wrong else ""
    coarse = _coarse(usable, base) if usable else ""
    told = {
        "wrong": {key: words.begun(what) for key, what in reading.beside.items() if key},
        "warned": ({"learning_rate": rate} if rate else {})
        | ({"bucket_step": coarse} if coarse else {})
        | ({"base": base.line} if base and base.odd else {}),
        "told": {"base": base.line} if base else {},
        "idle": None if usable is None else {key: one.only for key, one in usable.idle().items()},
        "changed": sorted(changed),
    }
    return f'<div hidden data-told="{words.text(json.dumps(told, ensure_ascii=False))}"></div>'


def _coarse(settings: Settings, base: BaseLook | None) -> str:
    """What a large bucket step does to pictures; empty while their resolution is not known."""
    resolution = settings.dataset.resolution or (base.resolution if base else 0)
    if not resolution or settings.run.has_pairs:
        return ""
    return buckets.coarse(resolution, settings.dataset.bucket_step)


def search() -> str:
    """The field that searches all settings, as HTML, with what does not stand in their fields but finds them."""
    known = words.text(json.dumps({key: _also(spec) for key, spec in SPECS.items()}, ensure_ascii=False))
    label = words.text(tr("Search all settings"))
    return (
        f'<input type="search" placeholder="{label}" aria-label="{label}" autocomplete="off" '
        f'spellcheck="false" data-also="{known}"><div class="found" role="status"></div>'
    )


def _also(spec: Spec) -> str:
    """The names of a setting's choices, and in another language what its field holds in English."""
    options = [part for option in spec.options for part in (option.name, option.title)]
    own = [] if current() == ENGLISH else map(english, (spec.label, spec.about, spec.group.heading, *options))
    return " ".join(map(str, (*options, *own)))


def group_head(title: str) -> str:
    """The heading of a group of settings, which folds it, as HTML."""
    return (
        '<button type="button" class="group-head" aria-expanded="false">'
        f'<span>{words.text(title)}</span><span class="count"></span></button>'
    )
