"""The Library page: cards on the left, one adapter in full on the right. Bound together here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.errors import AdapterError, StudioError
from lora_studio.runs import library
from lora_studio.runs.library import Entry, Origin
from lora_studio.ui import downloads, words
from lora_studio.ui.outcome import WORK, told, wrong
from lora_studio.ui.pages.library import cards, details, work
from lora_studio.ui.pages.library.cards import Look
from lora_studio.ui.pages.library.work import WAYS, Cut
from lora_studio.ui.pages.train.setup import QUIET, Setup
from lora_studio.ui.theme import html

_EMPTY = '<div class="blank"><h2>Choose an adapter</h2><p>Its picture, facts and recipe appear here, with what you can do with it.</p></div>'
_TO_THE_DETAILS = (
    "() => { if (window.innerWidth < 900) document.getElementById('details')?.scrollIntoView({behavior: 'smooth'}) }"
)
_TO_THE_TOP = "() => { if (location.hash === '#train') window.scrollTo({top: 0}) }"
_TYPES = [".safetensors", ".ckpt", ".pt", ".pth", ".bin"]
"""What can be dropped: the adapters of the field, and its pickles, to be told why they are refused."""
_HIDDEN, _SHOWN = gr.update(visible=False), gr.update(visible=True)


class Library:
    """The page's parts and handlers."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self.look = gr.State(Look())
        with gr.Row(elem_classes="halves", equal_height=False):
            with gr.Column(scale=8, min_width=330, elem_classes="half"):
                self._place_cards()
            with gr.Column(scale=5, min_width=330, elem_classes="half", elem_id="details"):
                self._place_details()

    def _place_cards(self) -> None:
        with gr.Column(elem_classes="card"):
            html("<h2>Adapters</h2>")
            with gr.Row(elem_classes="finder"):
                search = {
                    "placeholder": "Search by name, trigger, model, rank16…",
                    "elem_id": "search",
                    "min_width": 200,
                    "scale": 3,
                }
                self.search = gr.Textbox(show_label=False, container=False, max_lines=1, **search)
                self.states = gr.Checkbox(
                    label="Saved states too", container=False, elem_id="states", min_width=150, scale=1
                )
            self.cards = html(js_on_load=cards.CHOOSE, elem_id="adapters")
            self.more = gr.Button("Show more", size="sm", visible=False, elem_id="more")
        with gr.Column(elem_classes="card"):
            html("<h2>Bring in adapters</h2>")
            self.drop = gr.File(
                label="LoRA files",
                show_label=False,
                file_count="multiple",
                file_types=_TYPES,
                height=150,
                elem_id="drop",
            )
            self.taken = html(visible=False, elem_id="taken")

    def _place_details(self) -> None:
        with gr.Column(elem_classes="card") as self.blank:
            html(_EMPTY)
        with gr.Column(elem_classes="card", visible=False) as self.card:
            self.facts = html(elem_id="facts")
            with gr.Row(elem_classes="controls"):
                self.ways_on = html(elem_id="ways-on")
                self.again = gr.Button("Open its recipe", size="md", min_width=120, elem_id="open-recipe")
                self.delete = gr.Button("Delete…", size="md", min_width=90, elem_id="delete")
            with gr.Column(visible=False, elem_classes="sure") as self.sure:
                self.question = html()
                with gr.Row(elem_classes="controls"):
                    self.yes = gr.Button("Move to the trash", size="md", variant="stop", min_width=130, elem_id="trash")
                    self.no = gr.Button("Keep it", size="md", min_width=90, elem_id="keep")
            self.said = html(visible=False, elem_id="details-said")
        with gr.Column(elem_classes="card", visible=False) as self.tools:
            with gr.Accordion("What it changes", open=False, elem_classes="fold first"):
                html('<p class="hint">How strongly it acts on each part of the model, and how small it could be.</p>')
                with gr.Row(elem_classes="controls"):
                    self.analyse = gr.Button("Look into it", size="md", min_width=110, elem_id="analyse")
                self.found = html(visible=False, elem_id="found")
            with gr.Accordion("Shrink", open=False, elem_classes="fold"):
                self._place_shrink()

    def _place_shrink(self) -> None:
        first = WAYS["energy"]
        with gr.Column(elem_classes="fields"):
            self.way = gr.Dropdown(
                [(way.name, key) for key, way in WAYS.items()],
                value="energy",
                label="Shrink by",
                filterable=False,
                elem_id="way",
            )
            self.value = gr.Number(first.start, label=first.label, elem_id="value")
        with gr.Row(elem_classes="controls"):
            self.attempt = gr.Button("See what it costs", size="md", min_width=130, elem_id="try")
            self.save = gr.Button(
                "Save the smaller copy",
                size="md",
                variant="primary",
                min_width=150,
                visible=False,
                elem_id="save-smaller",
            )
        self.shrunk = html(visible=False, elem_id="shrunk")
        with gr.Column(visible=False) as self.compare:
            with gr.Column(elem_classes="fields"):
                self.prompt = gr.Textbox(label="Draw", max_lines=1, elem_id="compare-prompt")
                self.base = gr.Textbox(
                    label="With the base model",
                    placeholder="starter, or the path of a model",
                    max_lines=1,
                    elem_id="compare-base",
                )
            with gr.Row(elem_classes="controls"):
                self.draw_both = gr.Button("Draw before and after", size="md", min_width=150, elem_id="draw-both")
            self.both = html(visible=False, elem_id="both")

    @property
    def _shelf(self) -> list[Any]:
        return [self.cards, self.more]

    @property
    def _one(self) -> list[Any]:
        """What ``shown`` gives updates of."""
        fixed = [
            self.blank,
            self.card,
            self.tools,
            self.facts,
            self.ways_on,
            self.again,
            self.delete,
            self.prompt,
            self.base,
        ]
        return [*fixed, self.sure, self.said, self.found, *self._after_an_attempt]

    @property
    def _after_an_attempt(self) -> list[Any]:
        return [self.save, self.shrunk, self.compare, self.both]

    def wire(self, tab: gr.Tab, rooms: gr.Tabs, setup: Setup) -> None:
        """Binds everything; ``tab`` is the page's own among ``rooms``, ``setup`` the form that a recipe is opened in."""
        tab.select(self.draw, self.look, self._shelf, **QUIET)
        typed = {"inputs": [self.look, self.search, self.states], "outputs": [self.look, *self._shelf], **QUIET}
        gr.on([self.search.change, self.states.input], self.find, trigger_mode="always_last", **typed)
        self.more.click(self.show_more, self.look, [self.look, *self._shelf], **QUIET)
        self.cards.click(self.choose, self.look, [self.look, *self._one], **QUIET).then(
            None, js=_TO_THE_DETAILS, **QUIET
        )
        self.drop.upload(self.take, [self.look, self.drop], [self.drop, self.taken, *self._shelf], **WORK)
        self.analyse.click(self.looked_into, self.look, self.found, **WORK)
        self._wire_shrink()
        self.delete.click(self.ask, self.look, [self.sure, self.question], **QUIET)
        self.no.click(lambda: _HIDDEN, None, self.sure, **QUIET)
        self.yes.click(self.remove, self.look, [self.look, *self._shelf, *self._one], **QUIET)
        form, data = setup.form.components, setup.form.fields["data"]
        opening = self.again.click(
            lambda look: self.open_recipe(look, setup), self.look, [rooms, self.said, setup.notice, *form], **QUIET
        )
        opening.then(setup.look, data, [data, setup.report], **QUIET).then(None, js=_TO_THE_TOP, **QUIET)

    def _wire_shrink(self) -> None:
        asked = [self.look, self.way, self.value]
        self.way.input(
            lambda way: gr.update(label=WAYS[way].label, value=WAYS[way].start), self.way, self.value, **QUIET
        )
        self.value.change(lambda: [_HIDDEN] * 4, None, self._after_an_attempt, trigger_mode="always_last", **QUIET)
        self.attempt.click(self.attempted, asked, self._after_an_attempt, **WORK)
        self.save.click(self.saved, asked, [self.shrunk, *self._shelf], **WORK)
        self.draw_both.click(self.compared, [*asked, self.base, self.prompt], self.both, **WORK)

    def draw(self, look: Look) -> list[Any]:
        """The cards, and whether there are more of them."""
        found = library.catalogue(self.outputs)
        shown = cards.matching(look, found.entries)
        drawn = cards.html(look, shown, len(found.entries), self.outputs) + cards.unreadable(found.unreadable)
        return [drawn, gr.update(visible=len(shown) > look.most)]

    def find(self, look: Look, typed: str, states: bool) -> list[Any]:
        """The cards that a search asks for."""
        look.words, look.states, look.most = (typed or "").strip()[:200], bool(states), cards.MOST_SHOWN
        return [look, *self.draw(look)]

    def show_more(self, look: Look) -> list[Any]:
        """Some more cards."""
        look.most += cards.MOST_SHOWN
        return [look, *self.draw(look)]

    def choose(self, look: Look, event: gr.EventData) -> list[Any]:
        """The adapter that was clicked, or that the page's address names, in full."""
        look.chosen = str(event.key)
        return [look, *self.shown(look)]

    def shown(self, look: Look) -> list[Any]:
        """Updates of the right half."""
        entry = cards.find(look.chosen, self.outputs)
        if entry is None:
            return [_SHOWN, *[_HIDDEN] * 2, *[gr.skip()] * 6, *[_HIDDEN] * 7]
        buttons = [gr.update(visible=details.can_open(entry)), gr.update(visible=entry.origin is not Origin.CHECKPOINT)]
        drawing = [details.subject(entry), details.base_at_hand(entry, self.outputs)]
        return [
            _HIDDEN,
            _SHOWN,
            _SHOWN,
            details.html(entry, self.outputs),
            details.ways_on(entry, self.outputs),
            *buttons,
            *drawing,
            *[_HIDDEN] * 7,
        ]

    def _chosen(self, look: Look) -> Entry:
        entry = cards.find(look.chosen, self.outputs)
        if entry is None:
            raise AdapterError(
                "This adapter has gone.", where=look.chosen, do="Choose another: it was moved or deleted."
            )
        return entry

    def take(self, look: Look, uploaded: list[str] | None) -> Iterator[list[Any]]:
        """Dropped files into the library."""
        for said in told("Checking every number in it…", lambda: work.take(uploaded or [], self.outputs)):
            yield [None, said, *self.draw(look)]

    def attempted(self, look: Look, way: str, value: float | None) -> Iterator[list[Any]]:
        """What shrinking would cost; only then can it be saved."""
        good = False

        def act() -> str:
            nonlocal good
            said = work.tried(self._chosen(look), Cut(way, value))
            good = True
            return said

        yield [_HIDDEN, gr.skip(), _HIDDEN, _HIDDEN]
        for said in _of_one(look, told("Trying…", act)):
            offered = gr.update(visible=good) if "value" in said else said
            yield [offered, said, offered, gr.skip()]

    def saved(self, look: Look, way: str, value: float | None) -> Iterator[list[Any]]:
        """A smaller copy."""
        for said in _of_one(
            look, told("Saving and proving…", lambda: work.saved(self._chosen(look), Cut(way, value), self.outputs))
        ):
            yield [said, *self.draw(look)]

    def compared(self, look: Look, way: str, value: float | None, base: str, prompt: str) -> Iterator[Any]:
        """Pictures before and after."""
        yield from _of_one(
            look,
            told(
                "Drawing…",
                lambda: work.drawn(self._chosen(look), Cut(way, value), base.strip(), prompt.strip(), self.outputs),
            ),
        )

    def looked_into(self, look: Look) -> Iterator[Any]:
        """The analysis."""

        def act() -> str:
            entry = self._chosen(look)
            return work.analysed(entry, details.base_at_hand(entry, self.outputs), self.outputs)

        yield from _of_one(look, told("Looking into every layer…", act))

    def ask(self, look: Look) -> list[Any]:
        """Asks before anything is deleted."""
        try:
            name = Path(self._chosen(look).path).name
        except StudioError as error:
            return [_SHOWN, wrong(error)]
        return [
            _SHOWN,
            words.notice("warned", f"Move {name} to the trash?", do="You can bring it back from your system's trash."),
        ]

    def remove(self, look: Look) -> list[Any]:
        """Into the trash with it."""
        try:
            path = Path(self._chosen(look).path)
            downloads.withdraw(path, self.outputs)
            library.trash(path)
        except (StudioError, OSError) as error:
            after = self.shown(look)
            after[self._one.index(self.said)] = gr.update(
                value=wrong(error) if isinstance(error, StudioError) else words.notice("wrong", str(error)),
                visible=True,
            )
            return [look, *self.draw(look), *after]
        look.chosen = ""
        return [look, *self.draw(look), *self.shown(look)]

    def open_recipe(self, look: Look, setup: Setup) -> list[Any]:
        """The chosen adapter's settings in the form of the Train page."""
        try:
            entry = self._chosen(look)
            values = details.settings(entry, self.outputs)
        except StudioError as error:
            return [
                gr.skip(),
                gr.update(value=wrong(error), visible=True),
                gr.skip(),
                *[gr.skip()] * len(setup.form.components),
            ]
        notice = gr.update(value=details.opened(entry, values), visible=True)
        return [gr.update(selected="train"), _HIDDEN, notice, *setup.form.filled(values)]


def _of_one(look: Look, updates: Iterator[Any]) -> Iterator[Any]:
    """``updates`` of what is said of the chosen adapter; nothing of it comes once another one was chosen."""
    chosen = look.chosen
    for update in updates:
        yield update if look.chosen == chosen else gr.skip()
