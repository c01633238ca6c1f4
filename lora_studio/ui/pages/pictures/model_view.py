"""The tool that shows what the model will see: the picture at its training size, through the VAE and back."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from lora_studio import files
from lora_studio.curation import masks
from lora_studio.curation.collection import Card, Collection
from lora_studio.dataset import framing, pictures
from lora_studio.errors import RunError, StudioError
from lora_studio.jobs import turns
from lora_studio.jobs.image_spec import RoundTrip
from lora_studio.jobs.renderer import Renderer
from lora_studio.language import in_sequence, tr
from lora_studio.ui import images, words
from lora_studio.ui.icons import icon
from lora_studio.ui.outcome import WORK, Updates, busy, wrong
from lora_studio.ui.pages.pictures import drawn_masks
from lora_studio.ui.pages.pictures.look import PicturesLook
from lora_studio.ui.pages.pictures.room import Room
from lora_studio.ui.pages.train import chosen
from lora_studio.ui.theme import html

_ASK = (
    chosen.SLIDE
    + """
let asked = '';
const ask = () => {
  const wanted = element.querySelector('[data-wanted]')?.dataset.wanted || '';
  if (wanted && wanted !== asked) trigger('input', {wanted});
  asked = wanted;
};
watch('value', ask);
ask();
"""
)
"""Compares the two images, and asks for one that is not there yet."""


_HIDDEN = gr.update(visible=False)
_DOING = {"waiting": tr("Waiting for a turn"), "loading": tr("Loading the VAE")}
"""Kinds of answers -> what is being done."""


class ModelView:
    """The picture as it is beside what the model sees of it."""

    def __init__(self, room: Room):
        self.room = room
        self.renderer = Renderer(room.outputs, images.folder(room.outputs) / "seen")
        with gr.Column(visible=False, elem_classes="tool", elem_id="model-tool") as self.column:
            self.pair = html(js_on_load=_ASK, elem_id="model-pair")
            self.note = html(elem_id="model-note")
            with gr.Row(elem_classes="controls"):
                self.again = gr.Button(tr("Try again"), size="sm", min_width=60, visible=False, elem_id="model-again")
        room.shows(self.draw, [self.column, self.pair, self.note, self.again])

    def wire(self) -> None:
        """Binds the requests for an image: the browser's, and the one after a failure."""
        shown = [self.pair, self.note, self.again]
        self.pair.input(self.render, self.room.look, shown, trigger_mode="multiple", concurrency_limit=None, **WORK)
        self.again.click(self.render, self.room.look, shown, concurrency_limit=None, **WORK)

    def draw(self, look: PicturesLook, collection: Collection) -> Updates:
        """The tool, if it is open. An image that was not made yet is asked for by the browser."""
        card = collection.cards.get(look.chosen)
        if card is None or look.tool != "model":
            return {self.column: gr.update(visible=False)}
        return {self.column: gr.update(visible=True), **self._shown(look, card), self.again: _HIDDEN}

    def _shown(self, look: PicturesLook, card: Card) -> Updates:
        try:
            image = self.renderer.known(spec(look, card))
            if image is None:
                wanted = words.text(spec(look, card).key())
                return {self.pair: f'<p data-wanted="{wanted}"></p>', self.note: busy(tr("Looking through the VAE…"))}
            below, above = image, read(card, self.room.outputs)
            return {self.pair: pair(card, below, above, self.room.outputs), self.note: note(card, below, above)}
        except (StudioError, OSError) as error:
            return {self.pair: "", self.note: wrong(error)}

    def render(self, look: PicturesLook) -> Iterator[Updates]:
        """Makes the image of the chosen picture."""
        card = self.room.collections.chosen(look)
        if card is None:
            yield {self.note: gr.skip()}
            return
        yield {self.again: _HIDDEN}
        try:
            for answer in self.renderer.draw(spec(look, card), f"seen {id(look)}"):
                if doing := _DOING.get(answer.kind):
                    yield {self.note: busy(turns.told(self.room.outputs, doing))}
        except StudioError as error:
            waits = isinstance(error, RunError)
            notice = words.notice("warned", error.what, error.where, error.do) if waits else wrong(error)
            yield {self.pair: "", self.note: notice, self.again: gr.update(visible=True)}
            return
        now = self.room.collections.chosen(look)
        yield self._shown(look, now) if now else {self.note: gr.skip()}


def spec(look: PicturesLook, card: Card) -> RoundTrip:
    """What is asked of the renderer for a card."""
    run, picture = look.settings.run, card.picture
    return RoundTrip(
        base=run.base,
        vae=run.vae,
        text_encoders=tuple(run.text_encoders),
        picture=str(picture.path),
        sha256=picture.sha256,
        bucket=tuple(card.bucket),
        crop=tuple(picture.crop) if picture.crop else None,
    )


def read(card: Card, outputs: Path) -> Path:
    """The picture at its training size, as training reads it, as a PNG of the page's.

    Raises:
        DatasetError: it can no longer be read.
    """
    picture = card.picture
    key = hashlib.sha256(f"{picture.sha256} {card.bucket} {picture.crop}".encode()).hexdigest()[:32]
    target = images.folder(outputs) / "seen" / f"{key}-read.png"
    if not target.exists():
        fitted = framing.fit(pictures.open_picture(picture.path), card.bucket, crop=picture.crop)
        out = io.BytesIO()
        fitted.save(out, "PNG")
        files.write(target, out.getvalue())
    return target


def hidden(card: Card, outputs: Path) -> str:
    """What the mask hides at the training size, as an image over it; empty without a mask."""
    picture = card.picture
    if picture.mask is None:
        return ""

    def fitted() -> Image.Image:
        mask = masks.of(picture) or Image.new("L", card.bucket, masks.WHITE)
        return framing.fit_mask(mask, card.bucket, card.bucket, crop=picture.crop)

    address = drawn_masks.shown(fitted, f"{picture.mask.sha256} {card.bucket} {picture.crop}", outputs)
    return f'<img class="hidden-part" src="{words.text(address)}" alt="">'


def pair(card: Card, seen: Path, read: Path, outputs: Path) -> str:
    """Both images, one over the other, with a slider between them."""
    name, seen_as = words.text(card.name), words.text(tr("{name} as the model sees it", name=card.name))
    above, below = words.text(tr("the picture")), words.text(tr("what the model sees"))
    compare, larger = words.text(tr("Compare with the picture")), words.text(tr("Full screen"))
    shape = f"--shape: {card.bucket.width / card.bucket.height:.4f}"
    return (
        f'<div class="pair seen-pair" style="{shape}">'
        f'<img src="{words.text(images.address(seen))}" alt="{seen_as}">'
        f'<img class="base" src="{words.text(images.address(read))}" alt="{name}">{hidden(card, outputs)}'
        f'<input type="range" min="0" max="100" value="50" aria-label="{compare}">'
        f'<i class="edge"></i><span class="left">{above}</span><span class="right">{below}</span>'
        f'<button type="button" class="larger" title="{larger}" aria-label="{larger}">{icon("expand")}</button>'
        "</div>"
    )


def note(card: Card, seen: Path, read: Path) -> str:
    """The size, and by how much the colours come back different."""
    with Image.open(seen) as one, Image.open(read) as other:
        levels = [np.asarray(image.convert("RGB"), np.float32) for image in (one, other)]
    off = float(np.abs(levels[0] - levels[1]).mean()) / 255
    said = [
        tr(
            "At {size}, encoded and decoded by the VAE. Colours come back {off:.1f} % off on average.",
            size=card.bucket,
            off=100 * off,
        )
    ]
    if card.picture.mask:
        said.append(tr("What is hatched is not learned."))
    return f'<p class="hint">{words.text(in_sequence(said))}</p>'
