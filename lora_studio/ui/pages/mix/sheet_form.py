"""The fields that say which sheet of a mix is drawn."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lora_studio.language import tr
from lora_studio.ui import words
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.mix.image_specs import Spread
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.scene.mixture import Mix
from lora_studio.ui.theme import html

_KINDS = {"strip": tr("Strip: one adapter, rising weight"), "grid": tr("Grid: two adapters crossed")}
_FIRST = {"strip": Spread(0.0, 1.5, 7), "grid": Spread(0.0, 1.5, 4)}
"""What the fields hold when a kind is chosen."""


class SheetForm:
    """The kind of a sheet, its adapters and their weights."""

    def __init__(self):
        html(f"<h2>{words.text(tr('Sheets'))}</h2>")
        self.kind = gr.Radio(
            [(label, kind) for kind, label in _KINDS.items()],
            value="strip",
            label=tr("Kind of sheet"),
            show_label=False,
            container=False,
            elem_id="mix-kind",
        )
        first = _FIRST["strip"]
        with gr.Column(elem_classes="fields tight"):
            self.across = gr.Dropdown([], label=tr("Adapter across"), elem_id="mix-across")
            self.down = gr.Dropdown([], label=tr("Adapter down"), visible=False, elem_id="mix-down")
            self.start = gr.Number(first.start, label=tr("From weight"), elem_id="mix-from")
            self.stop = gr.Number(first.stop, label=tr("To weight"), elem_id="mix-to")
            self.count = gr.Number(first.count, label=tr("How many"), precision=0, elem_id="mix-count")
        with gr.Row(elem_classes="controls"):
            self.draw = gr.Button(tr("Draw the sheet"), size="md", min_width=130, elem_id="mix-sheet")
        self.sheet = html(visible=False, elem_id="mix-sheet-drawn")

    @property
    def inputs(self) -> set[Any]:
        """Every field."""
        return {self.kind, self.across, self.down, self.start, self.stop, self.count}

    def wire(self) -> None:
        """Lets the fields follow the kind."""
        self.kind.change(self.show, self.kind, [self.down, self.start, self.stop, self.count], **QUIET)

    def show(self, kind: str) -> Updates:
        """The fields of a kind of sheet, with its usual weights."""
        first = _FIRST[kind]
        return {
            self.down: gr.update(visible=kind == "grid"),
            self.start: first.start,
            self.stop: first.stop,
            self.count: first.count,
        }

    def offer(self, mix: Mix) -> Updates:
        """The mix's adapters to choose from, the first two of them chosen."""
        named, keys = [(row.name, row.key) for row in mix.rows], [row.key for row in mix.rows]
        return {
            self.across: gr.update(choices=named, value=keys[0] if keys else None),
            self.down: gr.update(choices=named, value=keys[1] if len(keys) > 1 else None),
        }

    def keys(self, values: dict[Any, Any]) -> list[str | None]:
        """The chosen adapters: one for a strip, two for a grid."""
        return [values[self.across], *([values[self.down]] if values[self.kind] == "grid" else [])]

    def spread(self, values: dict[Any, Any]) -> Spread:
        """The weights that the fields hold."""
        return Spread(values[self.start], values[self.stop], values[self.count])
