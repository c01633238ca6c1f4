"""The panel of the chosen picture: its caption, what is wrong with it, and the tools for its crop and its mask."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lora_studio.curation.collection import Card, Collection
from lora_studio.curation.edits import Trim, preview
from lora_studio.dataset import captions
from lora_studio.errors import StudioError
from lora_studio.language import tr
from lora_studio.ui import words
from lora_studio.ui.icons import icon
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.pictures import caption_field, folders, picture_problems, stage
from lora_studio.ui.pages.pictures.caption_field import SaveOutcome
from lora_studio.ui.pages.pictures.crop import CropTool
from lora_studio.ui.pages.pictures.look import PAGE_SIZE, PicturesLook
from lora_studio.ui.pages.pictures.mask_editor import MaskTool
from lora_studio.ui.pages.pictures.model_view import ModelView
from lora_studio.ui.pages.pictures.room import Room
from lora_studio.ui.theme import html

_ACT = """
element.addEventListener('click', event => {
  const button = event.target.closest('[data-act]');
  if (button) trigger('click', {...button.dataset});
});
"""
_FOLLOW = (
    _ACT
    + """
let shown = '';
const card = () => document.getElementById('editor');
const press = () => document.querySelectorAll('[id^="open-"]').forEach(button => {
  const open = button.id === 'open-' + element.querySelector('[data-tool]')?.dataset.tool;
  button.setAttribute('aria-pressed', String(open));
});
element.addEventListener('click', event => {
  if (event.target.closest('.up')) document.querySelector('.picture[aria-current="true"]')?.scrollIntoView();
});
const follow = () => {
  const name = element.querySelector('h2')?.title, before = shown;
  setTimeout(press);
  shown = name;
  if (!name || name === before) return;
  const phone = matchMedia('(max-width: 760px)').matches, column = document.getElementById('chosen');
  if (!phone) column.scrollTop = 0;
  else setTimeout(() => { if (Math.abs(card().getBoundingClientRect().top) > 400) card().scrollIntoView(); }, 50);
};
watch('value', follow);
follow();
"""
)
"""Brings the panel into view when a picture is chosen; on a phone it is below the list. Says which tool is open."""
_TOOLS = {"crop": tr("Move the crop"), "mask": tr("Mask"), "model": tr("What the model sees")}


class PictureEditor:
    """The chosen picture, with its caption and its tools."""

    def __init__(self, room: Room):
        self.room = room
        with gr.Column(visible=False, elem_classes="card", elem_id="editor") as self.card:
            self.head = html(js_on_load=_FOLLOW, elem_id="editor-head")
            self.caption = html(js_on_load=caption_field.EDIT, elem_id="editor-caption")
            with gr.Row(elem_classes="controls"):
                self.tools = {
                    key: gr.Button(title, size="sm", min_width=60, elem_id=f"open-{key}")
                    for key, title in _TOOLS.items()
                }
                self.out = gr.Button(tr("Leave out"), size="sm", min_width=60, elem_id="leave-out")
                self.restore = gr.Button(
                    tr("Restore the first caption"), size="sm", min_width=60, visible=False, elem_id="restore-caption"
                )
            self.problems = html(js_on_load=_ACT, visible=False, elem_id="editor-problems")
            self.crop, self.mask, self.model = CropTool(room), MaskTool(room), ModelView(room)
        shown = [self.card, self.head, self.caption, *self.tools.values(), self.out, self.restore, self.problems]
        room.shows(self.draw, shown)

    def wire(self) -> None:
        """Binds the field, the buttons and the tools."""
        edits = self.room.edits
        edits(self.head.click, self.step)
        edits(self.caption.input, self.save)
        edits(self.caption.submit, self.save_and_go_on)
        edits(self.out.click, self.leave_out)
        edits(self.restore.click, self.restore_caption)
        edits(self.problems.click, self.fix)
        for key, button in self.tools.items():
            edits(button.click, _opens(key))
        self.crop.wire()
        self.mask.wire()
        self.model.wire()

    def draw(self, look: PicturesLook, collection: Collection) -> Updates:
        """The panel of the chosen picture; nothing if none is chosen."""
        card = collection.cards.get(look.chosen)
        if card is None:
            return {self.card: gr.update(visible=False)}
        found = _problems(card, collection)
        tools = {
            button: gr.update(variant="primary" if look.tool == key else "secondary")
            for key, button in self.tools.items()
        }
        return {
            self.card: gr.update(visible=True),
            self.head: self._head(card, look, collection),
            self.caption: self._caption(card, look, collection),
            self.out: tr("Take in") if card.left_out else tr("Leave out"),
            self.restore: gr.update(visible=self._restorable(look)),
            self.problems: gr.update(value=found, visible=bool(found)),
            **tools,
        }

    def _head(self, card: Card, look: PicturesLook, collection: Collection) -> str:
        names = [one.name for one in collection.find(look.query)]
        place = (
            tr("{place:,} of {total:,}", place=names.index(card.name) + 1, total=len(names))
            if card.name in names
            else tr("not in this list")
        )
        view = "" if look.tool else stage.view(card, self.room.outputs)
        name = words.text(card.name)
        up, back = words.text(tr("Back to the list")), words.text(tr("Previous picture"))
        following = words.text(tr("Next picture"))
        return (
            f'<div class="editor-head" data-tool="{look.tool}"><h2 title="{name}">{name}</h2>'
            f'<span class="hint">{words.text(place)}</span>'
            f'<button type="button" class="turn up" aria-label="{up}">{icon("up")}</button>'
            f'<button type="button" class="turn" data-act="back" aria-label="{back}">{icon("left")}</button>'
            f'<button type="button" class="turn" data-act="next" aria-label="{following}">{icon("right")}</button>'
            f"</div>{view}"
        )

    def _caption(
        self, card: Card, look: PicturesLook, collection: Collection, answer: SaveOutcome | None = None
    ) -> str:
        return caption_field.html(card, look.folder, collection.target.most_tokens, answer)

    def _restorable(self, look: PicturesLook) -> bool:
        return bool(self.room.collections.workbench(look).restorable([look.chosen]))

    def step(self, look: PicturesLook, event: gr.EventData) -> None:
        """The next picture of the list, or the one before."""
        self._go(look, 1 if event.act == "next" else -1)

    def _go(self, look: PicturesLook, by: int) -> None:
        names = [card.name for card in self.room.collections.of(look).find(look.query)]
        if not names:
            return
        place = names.index(look.chosen) + by if look.chosen in names else 0
        if 0 <= place < len(names):
            look.chosen, look.page = names[place], place // PAGE_SIZE
            look.selected = {look.chosen}

    def save(self, look: PicturesLook, event: gr.EventData) -> Updates:
        """Writes a caption that was typed, and says what became of it."""
        answer = self._save(look, event)
        collection = self.room.collections.of(look)
        card = collection.cards.get(look.chosen)
        return {self.caption: self._caption(card, look, collection, answer)} if card else {}

    def save_and_go_on(self, look: PicturesLook, event: gr.EventData) -> Updates:
        """``save``, then the next picture; the same one where it was not saved."""
        answer = self._save(look, event)
        if answer is None or answer.saved is not None:
            self._go(look, 1)
        collection = self.room.collections.of(look)
        card = collection.cards.get(look.chosen)
        return {self.caption: self._caption(card, look, collection, answer)} if card else {}

    def _save(self, look: PicturesLook, event: gr.EventData) -> SaveOutcome | None:
        """Saves the text of an event; None if it has none."""
        text, turn = getattr(event, "text", None), str(getattr(event, "turn", ""))
        if not isinstance(text, str):
            return None
        name, before = str(event.name), str(getattr(event, "before", ""))
        bench = self.room.workbench(look)
        try:
            done = bench.edit_captions(
                {name: text}, title=tr("Caption of {name} changed", name=name), shown={name: before}
            )
        except (StudioError, OSError) as error:
            return self._refused(look, name, turn, error)
        now = captions.tidy_lines(text)
        self.room.changed(look, done, captions={name: now})
        look.said = ""
        return SaveOutcome(turn, saved=now)

    def _refused(self, look: PicturesLook, name: str, turn: str, error: StudioError | OSError) -> SaveOutcome:
        """Why a caption was not saved; with the one that is in the file now, where that is another than was shown."""
        details = getattr(error, "details", {})
        if name in details.get("files", ()):
            now = self.room.collections.workbench(look).captions([name])[name]
            self.room.collections.of(look).change({name: now})
            return SaveOutcome(turn, other=now)
        return SaveOutcome(turn, why=str(error))

    def leave_out(self, look: PicturesLook) -> None:
        """Leaves the chosen picture out of training, or takes it in again."""
        self.room.leave_out(look, [look.chosen], not self.room.collections.of(look).card(look.chosen).left_out)

    def restore_caption(self, look: PicturesLook) -> None:
        """Puts back the caption that the picture had before the studio changed it first."""
        bench = self.room.workbench(look)
        done = bench.restore_captions([look.chosen])
        self.room.changed(look, done, captions=bench.captions([look.chosen]))

    def fix(self, look: PicturesLook, event: gr.EventData) -> None:
        """The remedy beside a problem of the picture that is shown."""
        if event.name != look.chosen:
            return  # she went on to another one meanwhile
        if event.act == "out":
            self.room.leave_out(look, [look.chosen], True)
        elif event.act == "folder":
            look.folder_form = folders.parent(look.chosen)
        elif event.act == "shorten":
            self._shorten(look)
        elif event.act in _TOOLS:
            look.tool = str(event.act)

    def _shorten(self, look: PicturesLook) -> None:
        """Cuts the chosen picture's caption to what is read, with room for the trigger word and its like."""
        collection = self.room.collections.of(look)
        card, target = collection.card(look.chosen), collection.target

        def count(text: str) -> int:
            return target.tokens([text])[0]

        added = card.tokens - max(map(count, card.picture.caption.split("\n")))
        trim = Trim(tokens=max(1, target.most_tokens - max(0, added)))
        changes = {one.name: one.after for one in preview({card.name: card.picture.caption}, trim, count)}
        done = self.room.workbench(look).edit_captions(changes, shown={card.name: card.picture.caption})
        self.room.changed(look, done, captions=changes)


def _opens(key: str) -> Any:
    """A handler that opens a tool, or closes it if it is open."""

    def toggle(look: PicturesLook) -> None:
        look.tool = "" if look.tool == key else key

    return toggle


def _problems(card: Card, collection: Collection) -> str:
    """What is wrong with a picture, each with a remedy where there is one, as HTML; empty if nothing is."""
    rows = "".join(
        f"<li><span>{words.text(what)}</span>{_remedy(act, title, card.name)}</li>"
        for what, act, title in picture_problems.of(card, collection)
    )
    return f'<ul class="picture-problems">{rows}</ul>' if rows else ""


def _remedy(act: str, title: str, name: str) -> str:
    about = f'data-act="{act}" data-name="{words.text(name)}"'
    return f'<button type="button" class="way" {about}>{words.text(title)}</button>' if act else ""
