"""The adapters that a page draws with: a field that adds one, and a row for each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.errors import StudioError
from lora_studio.language import tr
from lora_studio.runs import library
from lora_studio.ui import words
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.library import cards, details
from lora_studio.ui.scene import rows
from lora_studio.ui.scene.mixture import Mix
from lora_studio.ui.theme import html


class AdapterList:
    """The components, and what changes them.

    Args:
        room: the page's tab; what the elements' names begin with.
        mix: the tab's ``Mix``.
        empty: what stands in place of the rows while there are none.
    """

    def __init__(self, outputs: Path, room: str, mix: gr.State, empty: str):
        self.outputs, self.mix, self.empty = outputs, mix, empty
        with gr.Column(elem_classes="fields"):
            self.adding = gr.Dropdown(
                [], label=tr("Add an adapter"), info=tr("Type to search your library."), elem_id=f"{room}-add"
            )
        self.rows = html(rows.html(Mix(), empty), js_on_load=rows.change(room), elem_id=f"{room}-rows")
        self.message = html(visible=False, elem_id=f"{room}-said")

    @property
    def shown(self) -> list[Any]:
        """What ``show`` changes."""
        return [self.mix, self.adding, self.rows, self.message]

    def choices(self) -> Any:
        """The library's adapters to choose from, none of them chosen."""
        return gr.update(choices=cards.choices(library.entries(self.outputs), self.outputs), value=None)

    def show(self, mix: Mix, problem: StudioError | None = None) -> Updates:
        """The rows of ``mix``; with the ``problem`` that one could not be added."""
        message = words.notice("wrong", problem.what, problem.where, problem.do) if problem else ""
        return {
            self.mix: mix,
            self.adding: self.choices(),
            self.rows: rows.html(mix, self.empty),
            self.message: gr.update(value=message, visible=bool(message)),
        }

    def add(self, mix: Mix, key: str, base: str = "") -> str:
        """Puts an adapter into the mix; gives the base model to draw with: ``base``, or that of the first one's run.

        Raises:
            AdapterError: it is gone, or does not go with the others.
        """
        mix.add(cards.found(key, self.outputs), self.outputs)
        known = details.base_of_run(mix.rows[-1].run, self.outputs).get("base", "") if len(mix.rows) == 1 else ""
        gone = os.path.isabs(known) and not os.path.exists(known)
        return base if gone or not known else known

    def weigh(self, mix: Mix, event: gr.EventData) -> Updates:
        """Takes the weights over that the browser reports, or a list of block weights, and says what was changed to
        fit. Rows that need no change are left alone: one of their sliders may be moving.
        """
        changes = mix.weigh(getattr(event, "rows", None))
        row, asked = mix.row(str(getattr(event, "key", ""))), getattr(event, "list", None)
        notices = ""
        try:
            if row and asked == "use":
                changes += row.use_list(str(getattr(event, "text", "")))
            elif row and asked == "copy":
                row.write_list()
        except StudioError as error:
            notices = words.notice("wrong", error.what, error.where, error.do)
        notices += "".join(words.notice("warned", one) for one in changes)
        said: Updates = {self.message: gr.update(value=notices, visible=bool(notices))}
        if changes or (asked and not notices):
            said[self.rows] = rows.html(mix, self.empty)
        if row:
            row.listed = ""
        return said

    def weigh_mix(self, mix: Mix, event: gr.EventData) -> Updates:
        """``weigh`` as a handler of its own."""
        return {self.mix: mix, **self.weigh(mix, event)}

    def restore(self, mix: Mix, reported: object) -> None:
        """Puts into the mix what the browser kept of one, without what has gone meanwhile."""
        kept = [one for one in reported if isinstance(one, dict)] if isinstance(reported, list) else []
        for one in kept:
            try:
                self.add(mix, str(one.get("key")))
            except StudioError:
                continue
        mix.weigh(kept)


def with_trigger(prompt: str | None, trigger: str) -> str:
    """``prompt`` with the trigger word in front, unless it is in it."""
    if trigger in (prompt or ""):
        return prompt or ""
    return f"{trigger}, {prompt}" if prompt else trigger
