"""The Pictures page: the cards on the left, what is chosen on the right. Everything is bound together here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.config.settings import SLICE_OF
from lora_studio.language import tr
from lora_studio.ui import paths, words
from lora_studio.ui.fields import read
from lora_studio.ui.outcome import WORK, Updates
from lora_studio.ui.pages.pictures import recent
from lora_studio.ui.pages.pictures.bulk import BulkEdits
from lora_studio.ui.pages.pictures.captioning import CaptioningPanel
from lora_studio.ui.pages.pictures.editor import PictureEditor
from lora_studio.ui.pages.pictures.folders import Folders
from lora_studio.ui.pages.pictures.health import Health
from lora_studio.ui.pages.pictures.intake import Intake
from lora_studio.ui.pages.pictures.look import PicturesLook
from lora_studio.ui.pages.pictures.picture_list import PictureList
from lora_studio.ui.pages.pictures.room import Room
from lora_studio.ui.pages.pictures.words_panel import WordsPanel
from lora_studio.ui.pages.train.setup import QUIET, Setup
from lora_studio.ui.theme import html

_READ = ("base", "vae", "text_encoders", "trigger", *(key for key, part in SLICE_OF.items() if part == "dataset"))
"""The settings of the Train page's form that decide how pictures and captions are read."""
_SHOWN = "() => window.dispatchEvent(new Event('pictures-shown'))"


class PicturesPage:
    """The page's components and handlers."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self.room = Room(outputs)
        self.intake = Intake(self.room)
        failure = html(_reading(), elem_id="pictures-failure")
        with gr.Row(elem_classes="halves", equal_height=False) as body:
            with gr.Column(scale=8, min_width=330, elem_classes="half"), gr.Column(elem_classes="card"):
                self.list = PictureList(self.room)
            with gr.Column(scale=4, min_width=330, elem_classes="half", elem_id="chosen"):
                # each is placed where it is constructed
                editor, bulk = PictureEditor(self.room), BulkEdits(self.room)
                self.captioning = CaptioningPanel(self.room, bulk)
                self.panels: list[Any] = [
                    editor,
                    self.captioning,
                    bulk,
                    WordsPanel(self.room, bulk),
                    Health(self.room, bulk, self.captioning),
                    Folders(self.room),
                ]
        self.room.encloses(body, failure)
        self.room.place()

    def wire(self, tab: gr.Tab, tabs: gr.Tabs, setup: Setup) -> None:
        """Binds everything; ``tab`` is the page's own among ``tabs``. The folder is the one of ``setup``, the Train
        page's form, as are the settings that it is prepared for.
        """
        look, drawn = self.room.look, self.room.drawn
        read_of = [setup.data, *(setup.form.fields[key] for key in _READ)]
        tab.select(None, js=_SHOWN, **QUIET)
        filled: dict[str, Any] = {"inputs": [look, *read_of], "outputs": [*drawn, self.list.search, self.intake.path]}
        self.list.cards.expand(self.open, **filled, **WORK)

        def opened(event: Any) -> None:
            kept = setup.keeps(event.then(self.open, **filled, **WORK))
            setup.looks(kept.then)

        self.intake.wire(setup, opened, self.list.add)
        self.list.train.click(lambda: gr.update(selected="train"), None, tabs, **QUIET)
        self.captioning.opens(self.list.describe.click)
        self.list.wire()
        for panel in self.panels:
            panel.wire()
        self.room.wire(followers=[setup.data, self.intake.path])

    def open(self, look: PicturesLook, data: str, *values: Any) -> Iterator[Updates]:
        """The folder of the Train page, read again where files have changed; says how far it is while that takes."""
        settings = read({"data": paths.tidy(data), **dict(zip(_READ, values, strict=True))}).settings
        fields: Updates = {}
        if settings:
            if settings.run.data != look.folder:
                look.leave()
                fields = {self.list.search: "", self.intake.path: settings.run.data}
            look.settings = settings
        for done, total in self.room.collections.read(look):
            yield {self.room.failure: gr.update(value=_reading(done, total, alone=look.drawn is None), visible=True)}
        look.said = _said(look.arrived.pop(Path(look.folder), "")) or look.said
        shown = self.room.draw(look)
        if not look.failed:
            recent.remember(look.folder, self.outputs, self._unreadable(look))
            look.listed = False
            shown |= self.intake.draw(look)
        yield {**shown, **fields}

    def _unreadable(self, look: PicturesLook) -> list[str]:
        return [name for group in self.room.collections.of(look).dataset.groups("unreadable") for name in group]


def _reading(done: int = 0, total: int = 0, alone: bool = True) -> str:
    """How far reading is. ``alone`` hides what is below it: the page without pictures."""
    told = (
        tr("Reading the pictures: {done:,} of {total:,}", done=done, total=total)
        if total
        else tr("Reading the pictures…")
    )
    classes = "told running alone" if alone else "told running"
    return f'<p class="{classes}" role="status"><span class="dot"></span>{words.text(told)}</p>'


def _said(sentence: str) -> str:
    return f'<p class="told">{words.text(sentence)}</p>' if sentence else ""
