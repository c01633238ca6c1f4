"""The tool that masks what is not learned: by brush, from transparency, in a corner of many pictures, or by a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from lora_studio.curation import masks
from lora_studio.curation.collection import Card, Collection
from lora_studio.curation.masks import CORNERS, WHITE, Extent, Finish, Source
from lora_studio.dataset.items import Dataset
from lora_studio.errors import DatasetError, StudioError
from lora_studio.language import in_sequence, tr
from lora_studio.ui import words
from lora_studio.ui.outcome import Updates, wrong
from lora_studio.ui.pages.pictures import drawn_masks, mask_canvas, stage
from lora_studio.ui.pages.pictures.look import PicturesLook
from lora_studio.ui.pages.pictures.room import Room
from lora_studio.ui.pages.pictures.subject import SubjectTool
from lora_studio.ui.theme import html

_SOFT = 0.02
"""How far edges are softened at a press, as a share of the picture's shorter side."""
_TRANSPARENT = tr("Hide what is transparent")
_SAID = tr(
    "What is shaded is not learned. The mask is a file beside the picture, and the picture "
    "itself stays as it is: white is learned, black is not."
)


class MaskTool:
    """The canvas with the picture's mask, and the other ways to make one."""

    def __init__(self, room: Room):
        self.room = room
        with gr.Column(visible=False, elem_classes="tool", elem_id="mask-tool") as self.column:
            self.canvas = html(js_on_load=mask_canvas.PAINT, elem_id="mask")
            self.share = html(elem_id="mask-share")
            with gr.Row(elem_classes="controls"):
                self.alpha = gr.Button(_TRANSPARENT, size="sm", min_width=60, elem_id="mask-alpha")
                self.invert = gr.Button(tr("Invert"), size="sm", min_width=60, elem_id="mask-invert")
                self.soften = gr.Button(tr("Soften edges"), size="sm", min_width=60, elem_id="mask-soften")
                self.remove = gr.Button(tr("Remove the mask"), size="sm", min_width=60, elem_id="mask-remove")
            self.subject = SubjectTool(room)
        shown = [
            self.column,
            self.canvas,
            self.share,
            self.alpha,
            self.invert,
            self.soften,
            self.remove,
        ]
        room.shows(self.draw, shown)

    def wire(self) -> None:
        """Binds the canvas and the buttons."""
        edits = self.room.edits
        edits(self.canvas.input, self.paint)
        edits(self.canvas.submit, self.hide_corner)
        edits(self.alpha.click, lambda look: self._make(look, self._scope(look, "selected"), masks.opacity))
        edits(self.invert.click, self.turn_over)
        edits(self.soften.click, self.make_soft)
        edits(self.remove.click, lambda look: self._keep(look, {look.chosen: None}))
        self.subject.wire()

    def draw(self, look: PicturesLook, collection: Collection) -> Updates:
        """The tool, if it is open."""
        card = collection.cards.get(look.chosen)
        if card is None or look.tool != "mask":
            return {self.column: gr.update(visible=False)}
        has, several = gr.update(interactive=card.picture.mask is not None), len(look.selected)
        try:
            mask, share = drawn_masks.overlay(card.picture, self.room.outputs), _learned(card)
        except (StudioError, OSError) as error:
            mask, share = "", wrong(error)
        hide = tr("Hide what is transparent in the {count:,} selected", count=several) if several > 1 else _TRANSPARENT
        image = stage.image(card, self.room.outputs)
        return {
            self.column: gr.update(visible=True),
            self.canvas: mask_canvas.html(card, image, mask, several, len(collection.cards), look.resets),
            self.share: share,
            self.alpha: gr.update(value=hide, visible="alpha" in card.marks),
            self.invert: has,
            self.soften: has,
            self.remove: has,
        }

    def paint(self, look: PicturesLook, event: gr.EventData) -> None:
        """Keeps what was painted, at the picture's size."""
        card = self.room.collections.of(look).cards.get(str(event.name))
        if card is None:
            return
        size = card.picture.width, card.picture.height
        drawn = drawn_masks.read(event.mask, drawn_masks.canvas_size(*size))
        if drawn is None:
            raise DatasetError(tr("What was painted did not arrive."), where=card.name, do=tr("Paint it again."))
        made = drawn_masks.merged(drawn, masks.of(card.picture), size)
        self._keep(look, {card.name: None if made.getextrema()[0] == WHITE else masks.png(made)})

    def hide_corner(self, look: PicturesLook, event: gr.EventData) -> None:
        """Hides the same corner of one picture, of those that are selected, or of all."""
        where = next((one for one in CORNERS if one == event.corner), None)
        width, height = (min(100.0, max(1.0, float(side))) for side in (event.width, event.height))
        if where:
            extent = Extent(width / 100, height / 100, shares=True)
            self._make(look, self._scope(look, str(event.scope)), masks.without_corner(where, extent))

    def _scope(self, look: PicturesLook, scope: str) -> list[str]:
        names = {"one": {look.chosen}, "selected": look.selected}
        return [name for name in self.room.collections.of(look).cards if name in names.get(scope, {name})]

    def turn_over(self, look: PicturesLook) -> None:
        """Learns what was not learned, and the other way round."""
        self._change(look, masks.inverted)

    def make_soft(self, look: PicturesLook) -> None:
        """Softens the edges of what is learned."""
        self._change(look, lambda mask: masks.feathered(mask, _SOFT))

    def _change(self, look: PicturesLook, change: Any) -> None:
        mask = masks.of(self.room.collections.of(look).card(look.chosen).picture)
        if mask is not None:
            self._keep(look, {look.chosen: masks.png(change(mask))})

    def _make(self, look: PicturesLook, names: list[str], source: Source) -> None:
        """Makes masks of pictures as one step. Where there is one, only what both learn is learned."""
        self.room.workbench(look)
        collection = self.room.collections.of(look)
        chosen = Dataset(collection.dataset.folder, [collection.cards[name].picture for name in names], [])
        made = dict(masks.make(chosen, source, Finish()))
        if not made:
            raise DatasetError(tr("There is nothing to hide."), do=tr("The masks stay as they are."))
        self._keep(look, made)

    def _keep(self, look: PicturesLook, made: Mapping[str, bytes | None]) -> None:
        bench = self.room.workbench(look)
        done = bench.set_masks(made)
        self.room.changed(look, done, mask=drawn_masks.written(bench.folder, made))


def _learned(card: Card) -> str:
    mask = masks.of(card.picture)
    if mask is None:
        return f'<p class="hint">{words.text(in_sequence([tr("No mask: all of it is learned."), _SAID]))}</p>'
    share = masks.learned(mask)
    learned = tr("{share:.0%} of the picture is learned.", share=share)
    said = f'<p class="sentence">{words.text(learned)}</p><p class="hint">{words.text(_SAID)}</p>'
    empty = words.notice(
        "warned", tr("Nothing of this picture is learned."), do=tr("Paint with “Learn”, or leave it out.")
    )
    return said + (empty if share == 0 else "")
