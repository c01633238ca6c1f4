"""The left half of the Library page: search, cards, and a field to drop adapters into."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.errors import StudioError
from lora_studio.language import tr
from lora_studio.runs import library
from lora_studio.ui import tabs, words
from lora_studio.ui.outcome import WORK, Updates, told, wrong
from lora_studio.ui.pages.library import cards, work
from lora_studio.ui.pages.library.look import MOST_SHOWN, ORDERS, Look
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html

_TYPES = [".safetensors", ".ckpt", ".pt", ".pth", ".bin"]
"""Files that can be dropped: adapters, and pickles, so that a user learns why they are refused."""
_HINT = "document.documentElement.style.setProperty('--drop-hint', %s);"
"""What the field for files says, as a string of CSS: gradio's own words do not name the files."""


class Shelf:
    """The components of the left half and their handlers.

    Args:
        look: what the browser tab sees of the library, a ``Look``.
    """

    def __init__(self, outputs: Path, look: gr.State):
        self.outputs, self.look = outputs, look
        with gr.Column(elem_classes="card"):
            html(f"<h2>{words.text(tr('Adapters'))}</h2>")
            with gr.Row(elem_classes="finder"):
                self.search = gr.Textbox(
                    placeholder=tr("Search by name, trigger, model, rank16…"),
                    label=tr("Search the adapters"),
                    show_label=False,
                    container=False,
                    max_lines=1,
                    min_width=200,
                    scale=3,
                    elem_id="search",
                )
                self.states = gr.Checkbox(
                    label=tr("Saved states too"), container=False, elem_id="states", min_width=150, scale=1
                )
                self.order = gr.Dropdown(
                    [(label, order) for order, label in ORDERS.items()],
                    label=tr("Order of the adapters"),
                    show_label=False,
                    container=False,
                    filterable=False,
                    min_width=150,
                    scale=1,
                    elem_id="order",
                )
            with gr.Row(visible=False, elem_classes="undo", elem_id="library-undo") as self.deletion:
                self.said = html()
                self.back = gr.Button(tr("Undo"), size="md", min_width=80, elem_id="undo-delete")
            self.cards = html(js_on_load=cards.CHOOSE, elem_id="adapters")
            self.more = gr.Button(tr("Show more"), size="sm", visible=False, elem_id="more")
        with gr.Column(elem_classes="card"):
            hint = json.dumps(str(tr("Drop .safetensors files here, or choose them")), ensure_ascii=False)
            html(f"<h2>{words.text(tr('Add adapters'))}</h2>", js_on_load=_HINT % json.dumps(hint, ensure_ascii=False))
            self.drop = gr.File(
                label=tr("LoRA files"),
                show_label=False,
                file_count="multiple",
                file_types=_TYPES,
                height=150,
                elem_id="drop",
            )
            self.taken = html(visible=False, elem_id="taken")

    @property
    def drawn(self) -> list[Any]:
        """What ``draw`` changes."""
        return [self.cards, self.more]

    @property
    def told(self) -> list[Any]:
        """What ``deleted`` and ``restored`` change."""
        return [self.deletion, self.said, self.back, self.taken]

    def deleted(self, name: str) -> Updates:
        """That an adapter was moved to the trash, with a button that takes it back."""
        said = tr("{name} is in the trash.", name=f"<b>{words.text(name)}</b>")
        return {**self._say(f'<p role="status" data-deleted>{said}</p>'), self.back: gr.update(visible=True)}

    def restored(self, back: list[Path]) -> Updates:
        """That it is here again."""
        adapter = next((path for path in back if path.suffix == ".safetensors"), None)
        if adapter is None:
            told = words.text(tr("It is not kept for undo any more: your system's trash still has it."))
        else:
            address = words.text(tabs.address("library", adapter.relative_to(self.outputs).as_posix()))
            link = f'<a href="{address}"><b>{words.text(adapter.stem)}</b></a>'
            told = tr("{name} is here again.", name=link)
        return {**self._say(f'<p role="status">{told}</p>'), self.back: gr.update(visible=False)}

    def refused(self, error: StudioError) -> Updates:
        """Why it could not be taken back."""
        return {**self._say(wrong(error)), self.back: gr.update(visible=True)}

    def _say(self, shown: str) -> Updates:
        """What an upload told before does not hold any more."""
        return {self.deletion: gr.update(visible=True), self.said: shown, self.taken: gr.update(visible=False)}

    def wire(self, tab: gr.Tab) -> None:
        """Binds the handlers; ``tab`` is the page's own."""
        tab.select(self.draw, self.look, self.drawn, **QUIET)
        searched = [self.look, *self.drawn]
        typed: dict[str, Any] = {
            "inputs": [self.look, self.search, self.states, self.order],
            "outputs": searched,
            **QUIET,
        }
        gr.on([self.search.change, self.states.input, self.order.input], self.find, trigger_mode="always_last", **typed)
        self.more.click(self.show_more, self.look, searched, **QUIET)
        self.drop.upload(self.take, [self.look, self.drop], [self.drop, self.taken, *self.drawn], **WORK)

    def draw(self, look: Look) -> Updates:
        """The cards, and whether there are more of them."""
        found = library.catalogue(self.outputs)
        shown = cards.ordered(look, cards.matching(look, found.entries), self.outputs)
        drawn = cards.html(look, shown, len(found.entries), self.outputs) + cards.unreadable(found.unreadable)
        return {self.cards: drawn, self.more: gr.update(visible=len(shown) > look.most)}

    def find(self, look: Look, typed: str, states: bool, order: str) -> Updates:
        """The cards that a search asks for, in an order of ``ORDERS``."""
        look.words, look.states, look.most = (typed or "").strip()[:200], bool(states), MOST_SHOWN
        look.order = order
        return {self.look: look, **self.draw(look)}

    def show_more(self, look: Look) -> Updates:
        """Some more cards."""
        look.most += MOST_SHOWN
        return {self.look: look, **self.draw(look)}

    def take(self, look: Look, uploaded: list[str] | None) -> Iterator[Updates]:
        """Copies dropped files into the library."""
        for update in told(tr("Checking every tensor…"), lambda: work.take(uploaded or [], self.outputs)):
            yield {self.drop: None, self.taken: update, **self.draw(look)}
