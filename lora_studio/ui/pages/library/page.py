"""The Library page: cards on the left, one adapter in full on the right. Everything is bound together here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.errors import StudioError
from lora_studio.language import tr
from lora_studio.runs import library, undo
from lora_studio.runs.library import Origin
from lora_studio.ui import downloads, words
from lora_studio.ui.blank import blank
from lora_studio.ui.outcome import WORK, Updates, bound, told, wrong
from lora_studio.ui.pages.library import cards, details, work
from lora_studio.ui.pages.library.block_choice import BlockChoice
from lora_studio.ui.pages.library.card_form import CardForm
from lora_studio.ui.pages.library.look import Look, while_chosen
from lora_studio.ui.pages.library.shelf import Shelf
from lora_studio.ui.pages.library.shrink_form import ShrinkForm
from lora_studio.ui.pages.library.work import Cut
from lora_studio.ui.pages.train.setup import QUIET, Setup
from lora_studio.ui.theme import html

_TO_THE_DETAILS = (
    "() => { if (window.innerWidth < 900) document.getElementById('details')?.scrollIntoView({behavior: 'smooth'}) }"
)
_TO_THE_TOP = "() => { if (location.hash === '#train') window.scrollTo({top: 0}) }"
_NAMED_NO_MORE = """
told => {
  const deleted = told?.includes('data-deleted') && location.hash.startsWith('#library/');
  if (deleted) history.replaceState(null, '', '#library');
}
"""
"""The address names no adapter that was deleted."""
_HIDDEN, _SHOWN = gr.update(visible=False), gr.update(visible=True)


class LibraryPage:
    """The page's components and the handlers of the chosen adapter."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self.look = gr.State(Look())
        with gr.Row(elem_classes="halves", equal_height=False):
            with gr.Column(scale=8, min_width=330, elem_classes="half"):
                self.shelf = Shelf(outputs, self.look)
            with gr.Column(scale=5, min_width=330, elem_classes="half", elem_id="details"):
                with gr.Column(elem_classes="card") as self.blank:
                    self.none = html(_none_chosen(), elem_id="none-chosen")
                with gr.Column(elem_classes="card", visible=False) as self.card:
                    self._place_details()
                with gr.Column(elem_classes="card", visible=False) as self.tools:
                    self._place_tools()

    def _place_details(self) -> None:
        self.facts = html(elem_id="facts")
        with gr.Row(elem_classes="controls"):
            self.links = html(elem_id="ways-on")
            self.again = gr.Button(tr("Open its recipe"), size="md", min_width=120, elem_id="open-recipe")
            self.delete = gr.Button(tr("Delete…"), size="md", min_width=90, elem_id="delete")
        with gr.Column(visible=False, elem_classes="sure") as self.sure:
            self.question = html()
            with gr.Row(elem_classes="controls"):
                self.yes = gr.Button(tr("Move to the trash"), size="md", variant="stop", min_width=130, elem_id="trash")
                self.no = gr.Button(tr("Keep it"), size="md", min_width=90, elem_id="keep")
        self.message = html(visible=False, elem_id="details-said")

    def _place_tools(self) -> None:
        with gr.Accordion(tr("Model card"), open=False, elem_classes="fold first") as self.card_fold:
            self.model_card = CardForm(self.outputs)
        with gr.Accordion(tr("What it changes"), open=False, elem_classes="fold"):
            about = tr("How strongly it acts on each part of the model, and how small it could be.")
            html(f'<p class="hint">{words.text(about)}</p>')
            with gr.Row(elem_classes="controls"):
                self.analyze = gr.Button(tr("Analyze it"), size="md", min_width=110, elem_id="analyse")
            self.analysis = html(visible=False, elem_id="found")
            self.blocks = BlockChoice()
        with gr.Accordion(tr("Shrink"), open=False, elem_classes="fold"):
            self.shrink = ShrinkForm(self.outputs, self.look)

    @property
    def _shown(self) -> list[Any]:
        """What ``show`` changes."""
        card = [self.facts, self.links, self.again, self.delete, self.sure, self.message, self.analysis]
        return [
            self.blank,
            self.none,
            self.card,
            self.tools,
            *card,
            *self.blocks.filled,
            *self.shrink.filled,
            self.card_fold,
            *self.model_card.filled,
        ]

    def wire(self, tab: gr.Tab, tabs: gr.Tabs, setup: Setup) -> None:
        """Binds everything; ``tab`` is the page's own among ``tabs``, ``setup`` the form that opens recipes."""
        self.shelf.wire(tab)
        self.shrink.wire()
        chosen = self.shelf.cards.click(self.choose, self.look, [self.look, *self._shown], **QUIET)
        chosen.then(None, js=_TO_THE_DETAILS, **QUIET)
        self.analyze.click(self.analyzed, self.look, [self.analysis, *self.blocks.filled], **WORK)
        self.blocks.wire(tabs, setup)
        self.shrink.save.click(self.save_smaller, self.shrink.asked, [self.shrink.result, *self.shelf.drawn], **WORK)
        form = self.model_card
        kept = [form.saved, self.facts, self.links, *self.shelf.drawn]
        bound(form.save, tr("Saving…"), form.save.click, self.save_card, [self.look, *form.fields], kept, **WORK)
        self.delete.click(self.ask, self.look, [self.sure, self.question], **QUIET)
        self.no.click(lambda: _HIDDEN, None, self.sure, **QUIET)
        removed = [self.look, *self.shelf.drawn, *self.shelf.told, *self._shown]
        removing = bound(self.yes, tr("Moving…"), self.yes.click, self.remove, self.look, removed, **QUIET)
        removing.then(None, self.shelf.said, js=_NAMED_NO_MORE, **QUIET)
        self.shelf.back.click(self.bring_back, self.look, [*self.shelf.drawn, *self.shelf.told], **QUIET)
        opened = [tabs, self.message, setup.notice, *setup.form.components]
        opening = self.again.click(lambda look: self.open_recipe(look, tabs, setup), self.look, opened, **QUIET)
        setup.looks(setup.keeps(opening).then)
        opening.then(None, js=_TO_THE_TOP, **QUIET)

    def choose(self, look: Look, event: gr.EventData) -> Updates:
        """The adapter that was clicked, or that the page's address names, in full."""
        look.chosen = str(event.key)
        return {self.look: look, **self.show(look)}

    def show(self, look: Look) -> Updates:
        """The right half, for the chosen adapter or for none."""
        cleared = dict.fromkeys((self.sure, self.message, self.analysis), _HIDDEN) | self.blocks.hide()
        entry = cards.find(look.chosen, self.outputs)
        if entry is None:
            hidden = {self.blank: _SHOWN, self.card: _HIDDEN, self.tools: _HIDDEN}
            none = _gone(look.chosen) if look.chosen else _none_chosen()
            return {**hidden, **cleared, **self.shrink.hide(), self.none: none}
        return {
            self.blank: _HIDDEN,
            self.card: _SHOWN,
            self.tools: _SHOWN,
            self.facts: details.html(entry, self.outputs),
            self.links: details.links(entry, self.outputs),
            self.again: gr.update(visible=details.can_open(entry)),
            self.delete: gr.update(visible=entry.origin is not Origin.CHECKPOINT),
            **cleared,
            **self.shrink.fill(entry),
            self.card_fold: gr.update(visible=entry.origin is not Origin.CHECKPOINT),
            **self.model_card.fill(entry),
        }

    def save_smaller(self, look: Look, measure: str, value: float | None) -> Iterator[Updates]:
        """Saves a smaller copy."""

        def act() -> str:
            return work.saved(cards.found(look.chosen, self.outputs), Cut(measure, value), self.outputs)

        for update in while_chosen(look, told(tr("Saving and proving…"), act)):
            yield {self.shrink.result: update, **self.shelf.draw(look)}

    def save_card(self, look: Look, *texts: str | None) -> Iterator[Updates]:
        """Saves the model card of the chosen adapter."""

        def act() -> str:
            return self.model_card.keep(cards.found(look.chosen, self.outputs), *texts)

        for update in while_chosen(look, told(tr("Saving…"), act)):
            entry = cards.find(look.chosen, self.outputs)
            about = (
                {self.facts: details.html(entry, self.outputs), self.links: details.links(entry, self.outputs)}
                if entry
                else {}
            )
            yield {self.model_card.saved: update, **self.shelf.draw(look), **about}

    def analyzed(self, look: Look) -> Iterator[Updates]:
        """Where the adapter changes the model, and its blocks to choose from."""
        shares: dict[str, float] = {}

        def act() -> str:
            entry = cards.found(look.chosen, self.outputs)
            found = work.analyzed(entry, details.base_at_hand(entry, self.outputs), self.outputs)
            shares.update(found.blocks)
            return found.html

        for update in while_chosen(look, told(tr("Analyzing every layer…"), act)):
            more = {} if "value" not in update else self.blocks.fill(shares) if shares else self.blocks.hide()
            yield {self.analysis: update, **more}

    def ask(self, look: Look) -> Updates:
        """Asks before anything is deleted."""
        try:
            name = Path(cards.found(look.chosen, self.outputs).path).name
        except StudioError as error:
            return {self.sure: _SHOWN, self.question: wrong(error)}
        restore = tr("Undo brings it back, and so does your system's trash later.")
        return {
            self.sure: _SHOWN,
            self.question: words.notice("warned", tr("Move {name} to the trash?", name=name), do=restore),
        }

    def remove(self, look: Look) -> Updates:
        """Moves the chosen adapter to the trash, and offers to undo that."""
        said: Updates = {}
        try:
            path = Path(cards.found(look.chosen, self.outputs).path)
            downloads.withdraw(path, self.outputs)
            library.trash(path, self.outputs)
            look.chosen = ""
            said = self.shelf.deleted(path.name)
        except (StudioError, OSError) as error:
            said = {self.message: gr.update(value=wrong(error), visible=True)}
        return {self.look: look, **self.shelf.draw(look), **self.show(look), **said}

    def bring_back(self, look: Look) -> Updates:
        """Takes back what was moved to the trash last."""
        try:
            told = self.shelf.restored(undo.restore(self.outputs))
        except StudioError as error:
            told = self.shelf.refused(error)
        return {**told, **self.shelf.draw(look)}

    def open_recipe(self, look: Look, tabs: gr.Tabs, setup: Setup) -> Updates:
        """Puts the settings of the chosen adapter into the form of the Train page."""
        try:
            entry = cards.found(look.chosen, self.outputs)
            values = details.settings(entry, self.outputs)
        except StudioError as error:
            return {self.message: gr.update(value=wrong(error), visible=True)}
        form = setup.form.fill(values)
        notice = gr.update(value=details.opened(entry, values), visible=True)
        return {tabs: gr.update(selected="train"), self.message: _HIDDEN, setup.notice: notice, **form}


def _none_chosen() -> str:
    sentence = tr("Its image, facts and recipe appear here, with what you can do with it.")
    return blank("library", tr("Choose an adapter"), sentence)


def _gone(key: str) -> str:
    """That the adapter which the page's address names is not there."""
    do = tr("It was deleted, moved or renamed. If it was deleted, your system's trash may still have it.")
    return words.notice("warned", tr("There is no adapter {stem} any more.", stem=Path(key).stem), do=do)
