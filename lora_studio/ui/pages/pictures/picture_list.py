"""The list of the Pictures page: heading, filters, cards, pages, and what is selected."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.curation.collection import LENGTHS, MARKS, ORDERS, Card, Collection, Query
from lora_studio.language import number, tr
from lora_studio.ui import words
from lora_studio.ui.icons import icon
from lora_studio.ui.outcome import WORK, Updates
from lora_studio.ui.pages.pictures import cards, findings
from lora_studio.ui.pages.pictures.look import PAGE_SIZE, PicturesLook
from lora_studio.ui.pages.pictures.room import Room
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html

_EVERY = 0.4
"""Seconds between two looks at the thumbnails that are made."""
_FILTER = """
element.addEventListener('click', event => {
  const chip = event.target.closest('[data-mark], [data-act]');
  const {mark = '', act = 'mark'} = chip?.dataset ?? {};
  if (chip) trigger('click', {mark, act, on: chip.ariaPressed !== 'true'});
});
"""
_TO_THE_BASE = """
element.addEventListener('click', event => {
  if (event.target.closest('[data-field]'))
    setTimeout(() => document.querySelector('#set-base input')?.focus(), 300);
});
"""


class PictureList:
    """The cards and what chooses among them."""

    def __init__(self, room: Room):
        self.room = room
        with gr.Row(elem_classes="headline"):
            self.title = html(js_on_load=_TO_THE_BASE, elem_id="folder-title")
            with gr.Row(elem_classes="controls ways"):
                self.add = gr.Button(tr("Add pictures"), size="md", min_width=110, elem_id="add-pictures")
                self.describe = gr.Button(tr("Write captions…"), size="md", min_width=120, elem_id="write-captions")
                self.train = gr.Button(
                    tr("Train on these"), variant="primary", size="md", min_width=130, elem_id="train-these"
                )
        self.filters = html(js_on_load=_FILTER, elem_id="filters")
        self._place_finder()
        self.selection = html(js_on_load=_FILTER, visible=False, elem_id="selection")
        self.cards = html(js_on_load=cards.CHOOSE, elem_id="cards")
        with gr.Row(elem_classes="controls", visible=False) as self.pager:
            self.back = gr.Button(tr("Previous"), size="sm", min_width=90, elem_id="pictures-back")
            self.place = html()
            self.next = gr.Button(tr("Next"), size="sm", min_width=90, elem_id="pictures-next")
        shown = [self.title, self.train, self.filters, self.bucket, self.length, self.sort, self.selection, self.cards]
        room.shows(self.draw, [*shown, self.pager, self.place])

    def _place_finder(self) -> None:
        how: dict[str, Any] = {"show_label": False, "container": False, "filterable": False, "scale": 1}
        with gr.Row(elem_classes="finder"):
            self.search = gr.Textbox(
                placeholder=tr("Search names and captions…"),
                label=tr("Search the pictures"),
                show_label=False,
                container=False,
                max_lines=1,
                min_width=200,
                scale=2,
                elem_id="search-pictures",
            )
            self.bucket = gr.Dropdown(
                [(tr("All sizes"), "")], value="", label=tr("Size"), min_width=130, elem_id="bucket", **how
            )
            lengths = [(title, key) for key, (title, *_) in LENGTHS.items()]
            self.length = gr.Dropdown(lengths, value="", label=tr("Caption"), min_width=130, elem_id="length", **how)
            titles = [(title, key) for key, (title, _) in ORDERS.items()]
            self.sort = gr.Dropdown(titles, value="name", label=tr("Order"), min_width=150, elem_id="sort", **how)

    def wire(self) -> None:
        """Binds the filters, the cards and the keys."""
        look, drawn, fields = self.room.look, self.room.drawn, [self.search, self.bucket, self.length, self.sort]
        asked = [self.search.change, *(one.input for one in fields[1:])]
        gr.on(asked, self.find, [look, *fields], drawn, trigger_mode="always_last", **QUIET)
        self.filters.click(self.filter, look, [*drawn, self.search], **QUIET)
        self.cards.click(self.choose, look, drawn, **QUIET)
        self.cards.select(self.turn, look, drawn, **QUIET)
        self.cards.clear(self.unselect, look, drawn, **QUIET)
        self.cards.apply(self.select_all, look, drawn, **QUIET)
        self.cards.play(self.make_thumbnails, look, self.cards, **WORK)
        self.room.edits(self.cards.delete, self.turn_over)
        self.room.edits(self.selection.click, self.act)
        self.back.click(lambda look: self._turned(look, -1), look, drawn, **QUIET)
        self.next.click(lambda look: self._turned(look, 1), look, drawn, **QUIET).then(None, js=_TO_THE_TOP, **QUIET)

    def draw(self, look: PicturesLook, collection: Collection) -> Updates:
        """The list as ``look`` asks for it; nothing where it is drawn already."""
        found = collection.find(look.query)
        pages = max(1, -(-len(found) // PAGE_SIZE))
        look.page = max(0, min(look.page, pages - 1))
        drawn = _drawn(look, collection)
        if look.drawn == drawn:
            return {self.selection: _selection(look, collection)}
        look.drawn = drawn
        first = look.page * PAGE_SIZE + 1
        place = tr(
            "{first:,} to {last:,} of {total:,}",
            first=first,
            last=min(first + PAGE_SIZE - 1, len(found)),
            total=len(found),
        )
        sizes = collection.buckets()
        if look.query.bucket not in sizes:
            sizes[look.query.bucket] = 0
        return {
            self.title: _title(look, collection),
            self.train: gr.update(interactive=any(card.shows_style for card in collection.cards.values())),
            self.filters: _filters(look, collection),
            self.bucket: gr.update(
                choices=_sizes(sizes), value=look.query.bucket if look.query.bucket in sizes else ""
            ),
            self.length: look.query.length,
            self.sort: look.query.sort,
            self.selection: _selection(look, collection),
            self.cards: cards.html(look, found, collection, self.room.outputs),
            self.pager: gr.update(visible=pages > 1),
            self.place: f'<span class="hint">{place}</span>',
        }

    def find(self, look: PicturesLook, typed: str, bucket: str, length: str, sort: str) -> Updates:
        """The pictures that the fields ask for."""
        asked = {"words": (typed or "")[:200], "bucket": bucket or "", "length": length or "", "sort": sort or "name"}
        look.query, look.page = replace(look.query, **asked), 0
        return self.room.draw(look)

    def filter(self, look: PicturesLook, event: gr.EventData) -> Updates:
        """The pictures with a mark, or all."""
        look.page = 0
        if event.act == "tag":
            look.query = replace(look.query, tag="")
        elif not event.mark:
            look.query = Query(sort=look.query.sort)
            return {**self.room.draw(look), self.search: ""}
        else:
            look.query = replace(look.query, mark=str(event.mark) if event.on else "")
        return self.room.draw(look)

    def choose(self, look: PicturesLook, event: gr.EventData) -> Updates:
        """The pictures that the browser has selected. It shows that itself, so the cards need not be drawn again unless
        another tab has changed something.
        """
        if float(event.at) < look.chosen_at:
            return {}  # it was overtaken by a later one
        collection = self.room.collections.of(look)
        shown = look.drawn == _drawn(look, collection)
        look.chosen_at = float(event.at)
        kept = look.selected - set(event.page) if event.keep else set()
        look.selected, look.chosen = kept | set(map(str, event.names)), str(event.name)
        look.drawn = _drawn(look, collection) if shown else None
        return self.room.draw(look)

    def select_all(self, look: PicturesLook) -> Updates:
        """All pictures of the list, on all its pages."""
        look.selected = {card.name for card in self.room.collections.of(look).find(look.query)}
        if look.chosen not in look.selected:
            look.chosen = ""
        return self.room.draw(look)

    def unselect(self, look: PicturesLook) -> Updates:
        """Nothing is chosen."""
        look.chosen, look.selected = "", set()
        return self.room.draw(look)

    def turn(self, look: PicturesLook, event: gr.EventData) -> Updates:
        """The next page or the one before, from the keyboard: its first or last picture is chosen."""
        return self._turned(look, 1 if event.by == 1 else -1, choose=True)

    def _turned(self, look: PicturesLook, by: int, choose: bool = False) -> Updates:
        found = self.room.collections.of(look).find(look.query)
        page = look.page + by
        if 0 <= page * PAGE_SIZE < len(found):
            look.page = page
            if choose:
                look.chosen = cards.page(look, found)[0 if by > 0 else -1].name
                look.selected = {look.chosen}
        return self.room.draw(look)

    def make_thumbnails(self, look: PicturesLook) -> Iterator[Updates]:
        """Makes the thumbnails that the page lacks, and shows them as they are made."""
        collection, drawn, at = self.room.collections.of(look), look.drawn, time.monotonic()
        shown = cards.page(look, collection.find(look.query))
        for _ in cards.make_thumbnails(look, cards.missing(look, shown, self.room.outputs), self.room.outputs):
            if look.drawn != drawn:
                return  # another page is shown by now, which asks for its own
            if time.monotonic() - at > _EVERY:
                at = time.monotonic()
                yield {self.cards: cards.html(look, collection.find(look.query), collection, self.room.outputs)}
        if look.drawn == drawn:
            yield {self.cards: cards.html(look, collection.find(look.query), collection, self.room.outputs)}

    def act(self, look: PicturesLook, event: gr.EventData) -> None:
        """A button of the selection."""
        if event.act == "clear":
            look.chosen, look.selected = "", set()
        else:
            self._leave_out(look, event.act == "out")

    def turn_over(self, look: PicturesLook) -> None:
        """Leaves out what is selected; takes it in again if all of it is left out."""
        self._leave_out(look, not all(card.left_out for card in self._selected(look)))

    def _selected(self, look: PicturesLook) -> list[Card]:
        known = self.room.collections.of(look).cards
        return [known[name] for name in sorted(look.selected) if name in known]

    def _leave_out(self, look: PicturesLook, out: bool) -> None:
        if chosen := self._selected(look):
            self.room.leave_out(look, [card.name for card in chosen if card.left_out != out], out)


_TO_THE_TOP = "() => document.getElementById('filters')?.scrollIntoView({behavior: 'smooth'})"


def _drawn(look: PicturesLook, collection: Collection) -> tuple:
    """What the list depends on."""
    return collection.version, look.folder, look.query, look.page, look.chosen, frozenset(look.selected)


def _title(look: PicturesLook, collection: Collection) -> str:
    total, out = len(collection.cards), collection.counts()["left out"]
    of_class = sum(card.picture.regularisation for card in collection.cards.values() if not card.left_out)
    facts = [words.counted(total, "picture"), *([tr("{count:,} left out", count=out)] if out else [])]
    facts += [words.counted(of_class, "class picture")] if of_class else []
    base = look.settings.run.base
    name = tr("the built-in starter") if base == "starter" else Path(base).name
    side = collection.target.resolution
    link = f'<a href="#train" data-field="base">{words.text(name)}, {number(side)} × {number(side)}</a>'
    shown = f'<h2 title="{words.text(look.folder)}">{words.text(Path(look.folder).name)}</h2>{words.facts(facts)}'
    return f'{shown}<p class="hint">{tr("Prepared for {base}", base=link)}</p>'


def _filters(look: PicturesLook, collection: Collection) -> str:
    counts = collection.counts()
    known = [mark for mark in MARKS if counts[mark]]
    others = sorted(mark for mark in counts.keys() - MARKS.keys() if mark != "left out")
    marks = [("", tr("All {count:,}", count=len(collection.cards)))]
    marks += [(mark, f"{MARKS.get(mark) or findings.title(mark)} {number(counts[mark])}") for mark in [*known, *others]]
    tag = ""
    if look.query.tag:
        shown = words.text(look.query.tag)
        inside = f"“{shown}” {icon('close')}"
        tag = f'<button type="button" class="filter" data-act="tag" aria-pressed="true">{inside}</button>'
    return f'<div class="chips">{"".join(_chip(mark, title, look) for mark, title in marks)}{tag}</div>'


def _chip(mark: str, title: str, look: PicturesLook) -> str:
    query = look.query
    pressed = query.mark == mark if mark else query == Query(sort=query.sort)
    return (
        f'<button type="button" class="filter" data-mark="{words.text(mark)}" aria-pressed="{str(pressed).lower()}">'
        f"{words.text(title)}</button>"
    )


def _sizes(counted: dict[str, int]) -> list[tuple[str, str]]:
    return [(tr("All sizes"), ""), *((f"{size} ({number(count)})", size) for size, count in counted.items() if size)]


def _selection(look: PicturesLook, collection: Collection) -> Any:
    """What can be done with several selected pictures."""
    chosen = [card for name in look.selected if (card := collection.cards.get(name))]
    if len(chosen) < 2:
        return gr.update(visible=False)
    out = all(card.left_out for card in chosen)
    buttons = [("in", tr("Take in")) if out else ("out", tr("Leave out")), ("clear", tr("Select none"))]
    row = "".join(
        f'<button type="button" class="way" data-act="{key}">{words.text(name)}</button>' for key, name in buttons
    )
    selected = words.text(tr("{count:,} selected", count=len(chosen)))
    return gr.update(value=f'<div class="ways"><b>{selected}</b>{row}</div>', visible=True)
