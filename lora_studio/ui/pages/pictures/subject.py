"""Masks of what a segmentation model finds in pictures, with progress, and a stop between two pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from lora_studio.curation.collection import Collection
from lora_studio.errors import DatasetError, StudioError
from lora_studio.language import in_sequence, ntr, tr
from lora_studio.ui import words
from lora_studio.ui.outcome import WORK, Updates, wrong
from lora_studio.ui.pages.pictures import drawn_masks
from lora_studio.ui.pages.pictures.look import PicturesLook
from lora_studio.ui.pages.pictures.room import Room
from lora_studio.ui.pages.pictures.subject_search import SubjectSearch
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.paths import tidy
from lora_studio.ui.theme import html
from lora_studio.vision import catalogue, local
from lora_studio.vision.catalogue import Task

_ASK = """
let asked = '';
const ask = () => {
  const wanted = element.querySelector('[data-wanted]')?.dataset.wanted || '';
  if (wanted && wanted !== asked) trigger('input', {wanted});
  asked = wanted || asked;
};
watch('value', ask);
ask();
"""
"""Begins a search that was asked for, once."""


class SubjectTool:
    """The choice of a model, and the search."""

    def __init__(self, room: Room):
        self.room = room
        with gr.Accordion(tr("Find the subject"), open=False, elem_classes="fold", elem_id="mask-subject"):
            offered = [(one.title, one.key) for one in catalogue.offered(Task.MASKS)]
            self.model = gr.Dropdown(
                offered,
                value=offered[0][1],
                label=tr("Model"),
                info=tr("One that was downloaded, or the path of an .onnx file of the U²-Net kind."),
                allow_custom_value=True,
                elem_id="mask-model",
            )
            self.keep = gr.Radio(
                [(tr("Learn the subject"), "subject"), (tr("Learn the background"), "background")],
                value="subject",
                show_label=False,
                container=False,
                elem_id="mask-keep",
            )
            with gr.Row(elem_classes="controls"):
                self.here = gr.Button(tr("Find it here"), size="sm", min_width=60, elem_id="mask-find")
                self.all = gr.Button(tr("In all pictures"), size="sm", min_width=60, elem_id="mask-find-all")
                self.stop = gr.Button(tr("Stop"), size="sm", min_width=60, visible=False, elem_id="mask-find-stop")
            self.progress = html(js_on_load=_ASK, elem_id="mask-busy")
        room.shows(self.draw, [self.here, self.all, self.stop, self.progress])

    def wire(self) -> None:
        """Binds the buttons, and the search that they ask for."""
        edits = self.room.edits
        edits(self.here.click, self.ask_here, inputs=[self.model, self.keep])
        edits(self.all.click, self.ask_everywhere, inputs=[self.model, self.keep])
        self.stop.click(self.stop_search, self.room.look, [self.progress, self.stop], **QUIET)
        shown = list(dict.fromkeys([*self.room.drawn, self.progress]))
        self.progress.input(self.search, self.room.look, shown, trigger_mode="multiple", concurrency_limit=None, **WORK)

    def draw(self, look: PicturesLook, collection: Collection) -> Updates:
        """The buttons, and how far a search is."""
        if look.tool != "mask":
            return {}
        several, now = len(look.selected), look.search
        where = tr("In the {count:,} selected", count=several) if several > 1 else tr("In all pictures")
        return {
            self.here: gr.update(interactive=now is None),
            self.all: gr.update(value=where, interactive=now is None),
            self.stop: gr.update(visible=now is not None, interactive=now is not None and not now.stopped),
            self.progress: now.said if now else "",
        }

    def ask_here(self, look: PicturesLook, model: str, keep: str) -> None:
        """Asks for masks of all but what a model finds in the chosen picture."""
        self._ask(look, {look.chosen}, model, keep)

    def ask_everywhere(self, look: PicturesLook, model: str, keep: str) -> None:
        """The same of the selected pictures, or of all if one is selected."""
        cards = self.room.collections.of(look).cards
        self._ask(look, look.selected if len(look.selected) > 1 else set(cards), model, keep)

    def _ask(self, look: PicturesLook, names: set[str], model: str, keep: str) -> None:
        if look.search is not None:
            return
        bench = self.room.workbench(look)
        found = local.find(tidy(model) if Path(tidy(model)).exists() else model or "")
        if found.task is not Task.MASKS:
            raise DatasetError(
                tr("{name} makes no masks.", name=found.name), where=tr("Model"), do=tr("Choose a segmentation model.")
            )
        cards = [card for name, card in self.room.collections.of(look).cards.items() if name in names]
        look.search = SubjectSearch(bench, found.path, "background" if keep == "background" else "subject", cards)

    def stop_search(self, look: PicturesLook) -> Updates:
        """Ends the search after the picture that it is at; what was found is kept."""
        if look.search is None:
            return {self.progress: "", self.stop: gr.update(visible=False)}
        look.search.stopped = True
        return {self.progress: look.search.said, self.stop: gr.update(interactive=False)}

    def search(self, look: PicturesLook) -> Iterator[Updates]:
        """Does the search that was asked for, and writes the masks as one step. Other edits can be made meanwhile."""
        now = look.search
        if now is None or now.begun:
            yield {self.progress: gr.skip()}
            return
        now.begun, said = True, ""
        try:
            for _ in now.pictures():
                yield {self.progress: now.said}
        except (StudioError, OSError) as error:
            said = wrong(error)
        finally:  # also where the tab is closed: what was found is not lost
            nothing = tr("Nothing was written.") if now.stopped else tr("There is nothing to hide.")
            said = self._keep(look, now) + said or f'<p class="told">{nothing}</p>'
            if look.search is now:
                look.search, look.said = None, said
            elif now.made:  # another folder was opened meanwhile
                place = words.text(tr("In {folder}:", folder=now.bench.folder.name))
                look.said = f'<p class="told">{place}</p>{said}'
        yield self.room.draw(look)

    def _keep(self, look: PicturesLook, search: SubjectSearch) -> str:
        """Writes the masks that were made, and returns what to say of it, as HTML."""
        here = look.search is search
        cards = self.room.collections.of(look).cards if here else {one.name: one for one in search.cards}
        before = {card.name: card.picture.mask for card in search.cards}
        made = {
            name: data
            for name, data in search.made.items()
            if (card := cards.get(name)) and card.picture.mask == before[name]
        }
        if not made:
            return ""
        try:
            done = search.bench.set_masks(made)
        except (StudioError, OSError) as error:
            return wrong(error)
        if here:
            self.room.changed(look, done, mask=drawn_masks.written(search.bench.folder, made))
        said = [done.sentence]
        if search.stopped:
            said.append(ntr(search.done, "Stopped after {count:,} picture.", "Stopped after {count:,} pictures."))
        if other := len(search.made) - len(made):
            said.append(
                ntr(
                    other,
                    "{count:,} mask that you changed meanwhile stayed.",
                    "{count:,} masks that you changed meanwhile stayed.",
                )
            )
        return f'<p class="told">{words.text(in_sequence(said))}</p>'
