"""The gallery's card: filters, pages and small pictures, and what was deleted last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.errors import StudioError
from lora_studio.language import number, tr
from lora_studio.runs import gallery
from lora_studio.runs.gallery import Drawn
from lora_studio.ui import downloads, images, outcome, words
from lora_studio.ui.outcome import WORK, Updates
from lora_studio.ui.pages.draw import wall
from lora_studio.ui.pages.draw.sitting import Sitting
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html


class PictureShelf:
    """The components, and what changes them."""

    def __init__(self, outputs: Path, sitting: gr.State):
        self.outputs, self.sitting = outputs, sitting
        with gr.Row(elem_classes="headline"):
            self.title = html(_title(), elem_id="wall-title")
            self.filters = html(js_on_load=wall.ACT, elem_id="wall-filters")
        with gr.Row(elem_classes="controls", visible=False) as self.deleted:
            self.said = html(elem_id="wall-said")
            self.undo = gr.Button(tr("Undo"), size="sm", min_width=70, elem_id="wall-undo")
        self.wall = html(wall.empty(), js_on_load=wall.CHOOSE, elem_id="wall")
        with gr.Row(elem_classes="controls", visible=False) as self.pager:
            self.back = gr.Button(tr("Previous"), size="sm", min_width=90, elem_id="wall-back")
            self.place = html()
            self.next = gr.Button(tr("Next"), size="sm", min_width=90, elem_id="wall-next")

    @property
    def shown(self) -> list[Any]:
        """What ``draw`` changes."""
        return [self.title, self.filters, self.wall, self.pager, self.place, self.deleted, self.said]

    def wire(self) -> None:
        """Binds pages, filters and undo. What is chosen is the page's."""
        sitting = self.sitting
        self.filters.click(self.filter, sitting, self.shown, **QUIET)
        self.back.click(lambda now: self.turn(now, -1), sitting, self.shown, **QUIET)
        self.next.click(lambda now: self.turn(now, 1), sitting, self.shown, **QUIET)
        self.undo.click(self.restore, sitting, self.shown, **QUIET)
        self.wall.play(self.make, sitting, self.wall, **WORK)

    def draw(self, sitting: Sitting) -> Updates:
        """The gallery as ``sitting`` asks for it."""
        try:
            every = gallery.listed(self.outputs)
        except StudioError as error:
            return {self.wall: outcome.wrong(error)}
        found = _filtered(sitting, every)
        stars = sum(one.starred for one in every)
        small = wall.html(sitting, found, self.outputs)  # which settles the page
        gone = gallery.can_restore(self.outputs)
        trashed = tr("{pictures} in the trash.", pictures=words.counted(gone, "picture"))
        return {
            self.title: _title(),
            self.filters: _chips(sitting, len(every), stars),
            self.wall: small,
            self.pager: gr.update(visible=len(found) > wall.PAGE_SIZE),
            self.place: f'<span class="hint">{wall.place(sitting, found)}</span>',
            self.deleted: gr.update(visible=bool(gone)),
            self.said: f'<span class="hint">{words.text(trashed)}</span>',
        }

    def filter(self, sitting: Sitting, event: gr.EventData) -> Updates:
        """All pictures, or those with a star."""
        sitting.starred, sitting.page = event.act == "starred", 0
        return self.draw(sitting)

    def turn(self, sitting: Sitting, by: int) -> Updates:
        """The next page, or the one before."""
        sitting.page += by
        return self.draw(sitting)

    def make(self, sitting: Sitting) -> Iterator[str]:
        """Makes the small pictures that the page lacks, then shows them."""
        found = _filtered(sitting, gallery.listed(self.outputs))
        wall.make(wall.shown(sitting, found), self.outputs)
        yield wall.html(sitting, found, self.outputs).replace(" data-wanted", "")

    def delete(self, sitting: Sitting, name: str) -> None:
        """Moves a picture to the trash; its neighbour is shown instead.

        Raises:
            StudioError: it is gone, or there is no trash.
        """
        names = [one.name for one in _filtered(sitting, gallery.listed(self.outputs))]
        path = gallery.found(name, self.outputs)
        after = names[names.index(name) + 1 :] + names[: names.index(name)][::-1] if name in names else []
        copy = images.place(path, self.outputs, wall.SIDE)
        downloads.withdraw(path, self.outputs)
        gallery.delete([name], self.outputs)
        copy.unlink(missing_ok=True)
        sitting.comparing = False  # or the neighbour would be compared with what is gone
        sitting.choose(next(iter(after), ""))

    def restore(self, sitting: Sitting) -> Updates:
        """Takes back what was deleted last."""
        try:
            gallery.restore(self.outputs)
        except StudioError as error:
            return {**self.draw(sitting), self.said: outcome.wrong(error)}
        return self.draw(sitting)


def _title() -> str:
    return f"<h2>{words.text(tr('Pictures'))}</h2>"


def _filtered(sitting: Sitting, every: Sequence[Drawn]) -> list[Drawn]:
    return [one for one in every if one.starred or not sitting.starred]


def _chips(sitting: Sitting, total: int, stars: int) -> str:
    made = "".join(
        f'<button type="button" class="filter" data-act="{act}" aria-pressed="{str(pressed).lower()}">{label}</button>'
        for act, label, pressed in (
            ("all", tr("All {total:,}", total=total), not sitting.starred),
            ("starred", f"★ {number(stars)}", sitting.starred),
        )
    )
    return f'<div class="chips">{made}</div>'
