"""The Pictures page: the cards on the left, what is chosen on the right. Everything is bound together here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.config.settings import SLICE_OF
from lora_studio.curation.collection import MARKS, ORDERS, Collection, Query
from lora_studio.ui import paths, words
from lora_studio.ui.form import read
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.pictures import cards
from lora_studio.ui.pages.pictures.bulk import BulkEdits
from lora_studio.ui.pages.pictures.editor import PictureEditor
from lora_studio.ui.pages.pictures.folders import Folders
from lora_studio.ui.pages.pictures.health import Health
from lora_studio.ui.pages.pictures.look import PAGE_SIZE, PicturesLook
from lora_studio.ui.pages.pictures.room import Room
from lora_studio.ui.pages.pictures.words_panel import WordsPanel
from lora_studio.ui.pages.train.setup import QUIET, Setup
from lora_studio.ui.theme import html

_READ = ("base", "vae", "text_encoders", "trigger", *(key for key, part in SLICE_OF.items() if part == "dataset"))
"""The settings of the Train page's form that decide how pictures and captions are read."""
_CHOOSE_FILTER = """
element.addEventListener('click', event => {
  const chip = event.target.closest('[data-mark]');
  if (chip) trigger('click', {mark: chip.dataset.mark});
});
"""


class PicturesPage:
    """The page's components and handlers."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self.room = Room(outputs)
        failure = html(visible=False)
        with gr.Row(elem_classes="halves", equal_height=False) as body:
            with gr.Column(scale=8, min_width=330, elem_classes="half"), gr.Column(elem_classes="card"):
                self._place_list()
            with gr.Column(scale=4, min_width=330, elem_classes="half", elem_id="chosen"):
                # each is placed where it is constructed
                editor, bulk = PictureEditor(self.room), BulkEdits(self.room)
                self.panels: list[Any] = [
                    editor,
                    bulk,
                    WordsPanel(self.room, bulk),
                    Health(self.room, bulk),
                    Folders(self.room),
                ]
        self.room.encloses(body, failure)
        self.room.place()

    def _place_list(self) -> None:
        with gr.Row(elem_classes="headline"):
            self.title = html(elem_id="folder-title")
            self.train = gr.Button("Train on these", variant="primary", size="md", min_width=130, elem_id="train-these")
        self.filters = html(js_on_load=_CHOOSE_FILTER, elem_id="filters")
        with gr.Row(elem_classes="finder"):
            self.search = gr.Textbox(
                placeholder="Search names and captions…",
                label="Search the pictures",
                show_label=False,
                container=False,
                max_lines=1,
                min_width=200,
                elem_id="search-pictures",
            )
            titles = [(title, key) for key, (title, _) in ORDERS.items()]
            self.sort = gr.Dropdown(
                titles, value="name", show_label=False, container=False, filterable=False, min_width=160, elem_id="sort"
            )
        self.cards = html(js_on_load=cards.CHOOSE, elem_id="cards")
        with gr.Row(elem_classes="controls", visible=False) as self.pager:
            self.back = gr.Button("Previous", size="sm", min_width=90, elem_id="pictures-back")
            self.place = html()
            self.next = gr.Button("Next", size="sm", min_width=90, elem_id="pictures-next")
        self.room.shows(self.draw, [self.title, self.filters, self.cards, self.pager, self.place])

    def wire(self, tab: gr.Tab, tabs: gr.Tabs, setup: Setup) -> None:
        """Binds everything; ``tab`` is the page's own among ``tabs``. The folder is the one of ``setup``, the Train
        page's form, as are the settings that it is prepared for.
        """
        look, drawn = self.room.look, self.room.drawn
        read_of = [setup.data, *(setup.form.fields[key] for key in _READ)]
        tab.select(self.open, [look, *read_of], drawn, **QUIET)
        searched: dict[str, Any] = {"inputs": [look, self.search, self.sort], "outputs": drawn, **QUIET}
        gr.on([self.search.change, self.sort.input], self.find, trigger_mode="always_last", **searched)
        self.filters.click(self.filter, look, drawn, **QUIET)
        self.cards.click(self.choose, look, drawn, **QUIET)
        self.back.click(lambda look: self.turn(look, -1), look, drawn, **QUIET)
        self.next.click(lambda look: self.turn(look, 1), look, drawn, **QUIET)
        self.train.click(lambda: gr.update(selected="train"), None, tabs, **QUIET)
        for panel in self.panels:
            panel.wire()
        self.room.wire()

    def open(self, look: PicturesLook, data: str, *values: Any) -> Updates:
        """The folder of the Train page, read again where files have changed."""
        raw = {"data": paths.tidy(data), **dict(zip(_READ, values, strict=True))}
        settings = read(raw).settings
        if settings:
            if settings.run.data != look.folder:
                look.query, look.page, look.chosen, look.selected = Query(), 0, "", set()
                look.said, look.pending, look.draft = "", None, None
            look.settings = settings
        return self.room.draw(look, fresh=True)

    def draw(self, look: PicturesLook, collection: Collection) -> Updates:
        """The list as ``look`` asks for it."""
        found = collection.find(look.query)
        pages = max(1, -(-len(found) // PAGE_SIZE))
        look.page = min(look.page, pages - 1)
        first = look.page * PAGE_SIZE + 1
        place = f"{first:,} to {min(first + PAGE_SIZE - 1, len(found)):,} of {len(found):,}"
        return {
            self.title: _title(look, collection),
            self.filters: _filters(look, collection),
            self.cards: cards.html(look, found, collection, self.outputs),
            self.pager: gr.update(visible=pages > 1),
            self.place: f'<span class="hint">{place}</span>',
        }

    def find(self, look: PicturesLook, typed: str, sort: str) -> Updates:
        """The pictures that a search asks for."""
        look.query, look.page = replace(look.query, words=(typed or "")[:200], sort=sort or "name"), 0
        return self.room.draw(look)

    def filter(self, look: PicturesLook, event: gr.EventData) -> Updates:
        """The pictures with a mark."""
        look.query, look.page = replace(look.query, mark=str(event.mark)), 0
        return self.room.draw(look)

    def choose(self, look: PicturesLook, event: gr.EventData) -> Updates:
        """The picture that was clicked."""
        look.chosen = str(event.name)
        look.selected = {look.chosen}
        return self.room.draw(look)

    def turn(self, look: PicturesLook, by: int) -> Updates:
        """The next page of the list, or the one before."""
        look.page = max(0, look.page + by)
        return self.room.draw(look)


def _title(look: PicturesLook, collection: Collection) -> str:
    total, out = len(collection.cards), collection.counts()["left out"]
    facts = [words.counted(total, "picture"), f"{total - out:,} train", *([f"{out:,} left out"] if out else [])]
    return f"<h2>{words.text(Path(look.folder).name)}</h2>{words.facts(facts)}"


def _filters(look: PicturesLook, collection: Collection) -> str:
    counts = collection.counts()
    marks = [("", f"All {len(collection.cards):,}")]
    marks += [(mark, f"{title} {counts[mark]:,}") for mark, title in MARKS.items() if counts[mark]]
    return f'<div class="chips">{"".join(_chip(mark, title, look) for mark, title in marks)}</div>'


def _chip(mark: str, title: str, look: PicturesLook) -> str:
    pressed = str(look.query.mark == mark).lower()
    return (
        f'<button type="button" class="filter" data-mark="{words.text(mark)}" aria-pressed="{pressed}">'
        f"{words.text(title)}</button>"
    )
