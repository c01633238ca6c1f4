"""The words in the captions: how frequent each tag is, which of them name the style or stand everywhere, and how long
captions are against what the base model reads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from statistics import median_low
from typing import NamedTuple

import gradio as gr

from lora_studio.curation import style_words, tags
from lora_studio.curation.collection import Collection
from lora_studio.curation.tags import TagCount, TagRemark
from lora_studio.language import ntr, number, tr
from lora_studio.ui import words
from lora_studio.ui.icons import icon
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.pictures.bulk import BulkEdits
from lora_studio.ui.pages.pictures.look import PicturesLook
from lora_studio.ui.pages.pictures.room import Room
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html

MOST_SHOWN = 40
_SEARCHED = 12
"""Tags from which on there is a search field."""
_BARS = 24
_KEPT = 4

PRESS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  const on = button?.ariaPressed !== 'true';
  if (button) trigger(button.dataset.act === 'filter' ? 'select' : 'edit', {...button.dataset, on});
});
element.addEventListener('keydown', event => {
  const step = {ArrowDown: 'nextElementSibling', ArrowUp: 'previousElementSibling'}[event.key];
  const row = step && event.target.closest('li');
  if (!row) return;
  event.preventDefault();
  row[step]?.querySelector('button')?.focus();
});
"""
"""Reports a pressed button by its data; arrows lead from row to row. For ``gr.HTML(js_on_load=...)``."""


class CaptionFacts(NamedTuple):
    """What the panel shows of all captions that train."""

    counts: list[TagCount]
    remarks: list[TagRemark]
    tokens: list[int]
    """Of each caption, sorted."""
    most: int
    """Tokens that the base model reads."""


class WordsPanel:
    """The card with the words."""

    def __init__(self, room: Room, bulk: BulkEdits):
        self.room, self.bulk = room, bulk
        self._known: OrderedDict[int, CaptionFacts] = OrderedDict()
        self._lock = threading.Lock()
        with gr.Column(elem_classes="card", elem_id="words-card"):
            self.about = html(js_on_load=PRESS, elem_id="words-about")
            self.search = gr.Textbox(
                placeholder=tr("Search tags…"),
                label=tr("Search tags"),
                show_label=False,
                container=False,
                max_lines=1,
                visible=False,
                elem_id="search-tags",
            )
            self.list = html(js_on_load=PRESS, elem_id="words")
            with gr.Row(elem_classes="controls"):
                self.replace = gr.Button(tr("Replace…"), size="md", min_width=80, elem_id="words-replace")
                self.add = gr.Button(tr("Add to all…"), size="md", min_width=90, elem_id="words-add")
                self.more = gr.Button(tr("More…"), size="md", min_width=70, elem_id="words-more")
        room.shows(self.draw, [self.about, self.search, self.list])

    def wire(self) -> None:
        """Binds the rows and the buttons."""
        look = self.room.look
        self.search.change(self.find, [look, self.search], [look, self.list], trigger_mode="always_last", **QUIET)
        self.list.select(self.filter, look, self.room.drawn, **QUIET)
        self.bulk.opens(self.list.edit, self.remove)
        self.bulk.opens(self.about.edit, self.follow)
        self.bulk.opens(self.replace.click, lambda look: self.bulk.propose(look, "replace"))
        self.bulk.opens(self.add.click, lambda look: self.bulk.propose(look, "prepend"))
        self.bulk.opens(self.more.click, lambda look: self.bulk.propose(look, "rename"))

    def draw(self, look: PicturesLook, collection: Collection) -> Updates:
        """The words of the captions that train."""
        facts = self.facts(collection)
        return {
            self.about: about(facts),
            self.search: gr.update(visible=len(facts.counts) > _SEARCHED),
            self.list: listed(facts, look.tag_search, look.query.tag),
        }

    def facts(self, collection: Collection) -> CaptionFacts:
        """What is known of a collection's captions; computed once for each of its versions."""
        with self._lock:
            known = self._known.get(collection.version)
            if known is None:
                known = self._known[collection.version] = facts_of(collection)
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
            return known

    def find(self, look: PicturesLook, typed: str) -> Updates:
        """The tags that a search asks for."""
        look.tag_search = (typed or "")[:100]
        facts = self.facts(self.room.collections.of(look))
        return {self.room.look: look, self.list: listed(facts, look.tag_search, look.query.tag)}

    def filter(self, look: PicturesLook, event: gr.EventData) -> Updates:
        """The pictures with a tag; pressed again, all."""
        look.query, look.page = replace(look.query, tag=str(event.tag) if event.on else ""), 0
        return self.room.draw(look)

    def remove(self, look: PicturesLook, event: gr.EventData) -> Updates:
        """Shows what removing a tag would change."""
        return self.bulk.propose(look, "remove", {"tags": (str(event.tag),)})

    def follow(self, look: PicturesLook, event: gr.EventData) -> Updates:
        """Shows what a remark's advice would change."""
        facts = self.facts(self.room.collections.of(look))
        if event.act == "trim":
            return self.bulk.propose(look, "trim", {"tokens": facts.most})
        edit = next(one.edit for one in facts.remarks if one.kind == event.kind)
        values = edit.model_dump()
        return self.bulk.propose(look, values.pop("kind"), values)


def facts_of(collection: Collection) -> CaptionFacts:
    """What there is to know of the captions that train, class pictures aside."""
    captions, target = collection.captions, collection.target
    tokens = sorted(card.tokens for card in collection.cards.values() if card.shows_style and card.picture.caption)
    counts = tags.frequencies(captions)
    return CaptionFacts(counts, tags.remarks(captions, target.trigger, counts), tokens, target.most_tokens)


def about(facts: CaptionFacts) -> str:
    """The heading, what an artist should know of the captions, and how long they are."""
    remarks = "".join(map(_remark, facts.remarks))
    heading = words.text(tr("Words in the captions"))
    return f'<div class="words-about"><h2>{heading}</h2>{_lengths(facts)}{remarks}</div>'


def _remark(remark: TagRemark) -> str:
    label = tr("Remove it…") if len(remark.tags) == 1 else tr("Remove them…")
    button = f'<button type="button" class="quiet-button" data-act="remark" data-kind="{remark.kind}">{label}</button>'
    said = f"<b>{words.text(remark.what)}</b><p>{words.text(remark.do)}</p>"
    return f'<div class="notice warned" role="note">{said}<div class="fixes">{button}</div></div>'


def _lengths(facts: CaptionFacts) -> str:
    """How many tokens the captions have, as a sentence and bars."""
    if not facts.tokens:
        return ""
    over = sum(tokens > facts.most for tokens in facts.tokens)
    longer = words.text(ntr(over, "{count:,} caption is longer.", "{count:,} captions are longer."))
    shorten = words.text(tr("Shorten…"))
    trim = f'<p><b>{longer}</b> <button type="button" class="quiet-button" data-act="trim">{shorten}</button></p>'
    said = words.text(_spread(facts))
    return f'<figure class="lengths">{_bars(facts)}<figcaption>{said}</figcaption>{trim if over else ""}</figure>'


def _spread(facts: CaptionFacts) -> str:
    shortest, longest = facts.tokens[0], facts.tokens[-1]
    if shortest == longest:
        tokens = words.counted(longest, "token")
        return tr("{tokens} each; the base model reads {most:,}.", tokens=tokens, most=facts.most)
    return tr(
        "{shortest:,} to {longest:,} tokens each, half have {median:,} or fewer; the base model reads {most:,}.",
        shortest=shortest,
        longest=longest,
        median=median_low(facts.tokens),
        most=facts.most,
    )


def _bars(facts: CaptionFacts) -> str:
    """How many captions have how many tokens; those that are too long stand out."""
    top = max(facts.tokens[-1], min(facts.most, 75)) + 1
    bins = [0] * _BARS
    for tokens in facts.tokens:
        bins[tokens * _BARS // top] += 1
    bars = (
        f'<i{" class=over" if place * top / _BARS >= facts.most else ""} style="height: {count / max(bins):.0%}"></i>'
        for place, count in enumerate(bins)
    )
    return f'<div class="bars" aria-hidden="true">{"".join(bars)}</div>'


def listed(facts: CaptionFacts, search: str, chosen: str) -> str:
    """The tags that ``search`` asks for, the most frequent first; ``chosen`` is the one that the cards have."""
    if not facts.counts:
        return f'<p class="hint">{words.text(tr("No caption yet."))}</p>'
    asked = search.casefold().split()
    found = [one for one in facts.counts if all(word in one.tag.casefold() for word in asked)]
    if not found:
        return f'<p class="hint" role="status">{words.text(tr("No tag has that."))}</p>'
    rows = "".join(_row(one, one.tag == chosen) for one in found[:MOST_SHOWN])
    left = len(found) - MOST_SHOWN
    rest = words.text(tr("and {count:,} more: search for them", count=left))
    more = f'<p class="hint">{rest}</p>' if left > 0 else ""
    return f'<ul class="words" tabindex="-1">{rows}</ul>{more}'


def _row(one: TagCount, chosen: bool) -> str:
    tag = words.text(one.tag)
    note = f"<small>{words.text(tr('names the style'))}</small>" if style_words.is_style(one.tag) else ""
    show, remove = words.text(tr("Show the pictures with it")), words.text(tr("Remove…"))
    label = words.text(tr("Remove {tag}…", tag=one.tag))
    pressed = str(chosen).lower()
    return (
        f'<li><button type="button" class="word" data-act="filter" data-tag="{tag}" aria-pressed="{pressed}"'
        f' title="{show}">{tag}{note}</button><span>{number(one.count)}</span>'
        f'<button type="button" class="out" data-act="remove" data-tag="{tag}" aria-label="{label}"'
        f' title="{remove}">{icon("close")}</button></li>'
    )
