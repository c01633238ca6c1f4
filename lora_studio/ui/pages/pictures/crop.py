"""The tool that moves a picture's crop: which part is trained on, and at which size."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from lora_studio.curation.collection import Card, Collection
from lora_studio.dataset import buckets
from lora_studio.dataset.preparation import Crop, check_crop
from lora_studio.language import ntr, tr
from lora_studio.ui import words
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.pictures import crop_frame, stage
from lora_studio.ui.pages.pictures.look import PicturesLook
from lora_studio.ui.pages.pictures.room import Room
from lora_studio.ui.theme import html

_SAID = tr(
    "Drag the frame or its edges. When you let go, it takes the shape of the nearest training size and is saved."
)


class CropTool:
    """The large picture with its frame, and what else can be done with a crop."""

    def __init__(self, room: Room):
        self.room = room
        with gr.Column(visible=False, elem_classes="tool", elem_id="crop-tool") as self.column:
            self.frame = html(js_on_load=crop_frame.DRAG, elem_id="crop")
            self.size = html(elem_id="crop-size")
            with gr.Row(elem_classes="controls"):
                self.reset = gr.Button(tr("Crop automatically"), size="sm", min_width=100, elem_id="crop-reset")
                self.spread = gr.Button("", size="sm", min_width=100, visible=False, elem_id="crop-spread")
        room.shows(self.draw, [self.column, self.frame, self.size, self.reset, self.spread])

    def wire(self) -> None:
        """Binds the frame and the buttons."""
        self.room.edits(self.frame.input, self.move)
        self.room.edits(self.reset.click, self.remove)
        self.room.edits(self.spread.click, self.apply_to_selected)

    def draw(self, look: PicturesLook, collection: Collection) -> Updates:
        """The tool, if it is open."""
        card = collection.cards.get(look.chosen)
        if card is None or look.tool != "crop":
            return {self.column: gr.update(visible=False)}
        others = len(look.selected - {look.chosen})
        label = tr("Use it for {pictures}", pictures=words.counted(others, "other selected picture"))
        return {
            self.column: gr.update(visible=True),
            self.frame: crop_frame.html(card, stage.image(card, self.room.outputs), look.resets),
            self.size: _size(card, collection.target.resolution),
            self.reset: gr.update(interactive=card.picture.crop is not None),
            self.spread: gr.update(value=label, visible=others > 0),
        }

    def move(self, look: PicturesLook, event: gr.EventData) -> None:
        """Keeps the crop that was released, in the shape of the size that it is trained at."""
        collection = self.room.collections.of(look)
        card = collection.cards.get(str(event.name))
        crop = crop_frame.reported(event.crop)
        if card and crop:
            check_crop(card.name, crop, card.picture.width, card.picture.height)
            self._keep(look, {card.name: snapped(card, crop, collection)})

    def remove(self, look: PicturesLook) -> None:
        """Crops the picture automatically again."""
        self._keep(look, {look.chosen: None})

    def apply_to_selected(self, look: PicturesLook) -> None:
        """Gives the chosen picture's crop to all selected ones, each in the shape of its own training size."""
        collection = self.room.collections.of(look)
        crop = part(collection.card(look.chosen))
        selected = [collection.cards[name] for name in look.selected if name in collection.cards]
        crops = {card.name: snapped(card, crop, collection) for card in selected}
        used = {card.name for card in selected if crops[card.name].covers(card.picture.width, card.picture.height)}
        small = len(crops) - len(used)
        notes = [ntr(small, "{count:,} picture is too small for it.", "{count:,} pictures are too small for it.")]
        self._keep(look, {name: crop for name, crop in crops.items() if name in used}, notes * bool(small))

    def _keep(self, look: PicturesLook, crops: dict[str, Crop | None], notes: Sequence[str] = ()) -> None:
        done = self.room.workbench(look).set_crops(crops)
        self.room.changed(look, done._replace(notes=(*done.notes, *notes)), crop=crops)


def part(card: Card) -> Crop:
    """The part of a card's picture that is trained on."""
    width, height = card.picture.width, card.picture.height
    left, top, right, bottom = card.box
    return Crop(left / width, top / height, right / width, bottom / height)


def snapped(card: Card, crop: Crop, collection: Collection) -> Crop:
    """``crop`` in the shape of the size that it is trained at."""
    settings, size = collection.target.dataset, (card.picture.width, card.picture.height)
    return buckets.snapped(crop, size, collection.target.resolution, settings.bucket_step, settings.max_upscale)


def _size(card: Card, resolution: int) -> str:
    """At which size the crop is trained, and a hint where it has few pixels."""
    left, top, right, bottom = card.box
    pixels = f"{right - left:.0f} × {bottom - top:.0f}"
    trains = tr("Trains at {size}, from {pixels} pixels.", size=f"<b>{card.bucket}</b>", pixels=pixels)
    said = f'<p class="sentence">{trains}</p><p class="hint">{words.text(_SAID)}</p>'
    if card.bucket.width > right - left + 1:
        said += words.notice(
            "warned", tr("This part is enlarged for training."), do=tr("A larger frame shows more detail.")
        )
    elif 2 * card.bucket.width * card.bucket.height < resolution**2:
        what = tr("This part is small for a model that draws {resolution} × {resolution}.", resolution=resolution)
        said += words.notice("warned", what, do=tr("A larger frame trains at a larger size."))
    return said
