"""The handlers that draw: begin, follow, end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.errors import StudioError
from lora_studio.language import tr
from lora_studio.ui import outcome, words
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.draw import order, sheets, stage
from lora_studio.ui.pages.draw.easel import DrawingProgress, Easel
from lora_studio.ui.pages.draw.form import DrawForm
from lora_studio.ui.pages.draw.order import DrawFields, DrawOrder
from lora_studio.ui.pages.draw.sheet_form import DrawSheetForm
from lora_studio.ui.pages.draw.shelf import PictureShelf
from lora_studio.ui.pages.draw.sitting import Sitting
from lora_studio.ui.scene.mixture import Mix

_MOST_SEED = 2**31


@dataclass
class PageDrawing:
    """What the page draws with, and where it shows it."""

    outputs: Path
    easel: Easel
    sitting: gr.State
    mix: gr.State
    form: DrawForm
    shelf: PictureShelf
    stage: gr.HTML
    note: gr.HTML
    cancel: gr.Button
    sheet: DrawSheetForm

    @property
    def inputs(self) -> set[Any]:
        """What a picture depends on."""
        return {self.sitting, self.mix, *self.form.inputs}

    @property
    def shown(self) -> list[Any]:
        """What ``draw`` and ``follow`` change."""
        return [self.sitting, self.stage, self.note, self.cancel, self.form.fields["seed"], *self.shelf.shown]

    def draw(self, values: dict[Any, Any]) -> Iterator[Updates]:
        """Draws what the fields hold, and shows how it forms."""
        asked = self.form.asked(values)
        if values[self.form.new_seed]:
            asked = asked._replace(seed=random.randrange(_MOST_SEED))
        yield from self._begin(values, asked, lambda mix: order.order(asked, mix, self.outputs))

    def draw_wanted(self, values: dict[Any, Any]) -> Iterator[Updates]:
        """Draws the sheet that the page's address has asked for."""
        sitting: Sitting = values[self.sitting]
        wanted, sitting.sheet_wanted = sitting.sheet_wanted, False
        if wanted:
            yield from self.draw_sheet(values)
        else:
            yield {self.sitting: gr.skip()}

    def draw_sheet(self, values: dict[Any, Any]) -> Iterator[Updates]:
        """Draws the sheet that the fields ask for, with the seed as it stands."""
        asked = self.form.asked(values)

        def made(mix: Mix) -> DrawOrder:
            return sheets.sheet(asked, mix, self.sheet.sides(values), self.sheet.entries())

        yield from self._begin(values, asked, made)

    def _begin(self, values: dict[Any, Any], asked: DrawFields, made: Callable[[Mix], DrawOrder]) -> Iterator[Updates]:
        sitting: Sitting = values[self.sitting]
        try:
            self.easel.begin(sitting.own_lane(), made(values[self.mix]))
        except StudioError as error:
            yield {self.note: outcome.wrong(error)}
            return
        sitting.watching, sitting.comparing, sitting.page = True, False, 0
        yield {self.form.fields["seed"]: asked.seed, self.note: ""}
        yield from self.follow(sitting)

    def follow(self, sitting: Sitting) -> Iterator[Updates]:
        """Shows what is drawn in the tab's lane until nothing is any more. A newer call takes the place of this one."""
        sitting.turn += 1
        turn, kept = sitting.turn, 0
        for drawing in self.easel.follow(sitting.lane):
            if sitting.turn != turn:
                break
            if drawing is None:
                continue
            updates = self._seen(sitting, drawing)
            if len(drawing.kept) != kept:
                kept = len(drawing.kept)
                self._choose_latest(sitting, drawing)
                updates = {**self._seen(sitting, drawing), **self.shelf.draw(sitting)}
            yield updates
        yield {self.sitting: gr.skip()}  # at its end Gradio sends the last updates once more

    def resume(self, sitting: Sitting) -> Iterator[Updates]:
        """Follows what was drawn when the page was loaded again."""
        if self.easel.drawing(sitting.lane).at_work:
            sitting.watching = True
            yield from self.follow(sitting)
        else:
            yield {self.sitting: gr.skip()}

    def end(self, sitting: Sitting) -> None:
        """Ends what is drawn. Whoever follows it shows that."""
        self.easel.cancel(sitting.lane)

    @staticmethod
    def _choose_latest(sitting: Sitting, drawing: DrawingProgress) -> None:
        if sitting.watching and drawing.kept:
            sitting.chosen, sitting.other = drawing.kept[-1], ""

    def _seen(self, sitting: Sitting, drawing: DrawingProgress) -> Updates:
        shown: Updates = {self.note: note(drawing), self.cancel: gr.update(visible=drawing.at_work)}
        if sitting.watching:
            shown[self.stage] = stage.html(sitting, drawing, self.outputs)
        return shown


def note(drawing: DrawingProgress) -> str:
    """What is to be said of a drawing, as HTML."""
    if error := drawing.error:
        return outcome.wrong(error)
    said = "".join(words.notice("warned", one) for one in (drawing.answer.notices if drawing.answer else ()))
    if drawing.cancelled and not drawing.at_work:
        kept = words.counted(len(drawing.kept), "picture")
        told = tr("Cancelled; {pictures} kept.", pictures=kept) if drawing.kept else tr("Cancelled.")
        said += f'<p class="hint" role="status">{words.text(told)}</p>'
    return said
