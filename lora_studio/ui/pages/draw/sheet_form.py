"""The fields that say which sheet is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.language import tr
from lora_studio.runs import library
from lora_studio.runs.library import Entry, Origin
from lora_studio.ui import words
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.draw import sheets
from lora_studio.ui.pages.draw.sheets import CHOSEN, NONE, TITLES, USUAL, AxisFields
from lora_studio.ui.pages.library import cards
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html

_MOST_STATES = 8
"""States of a run that are chosen at first, evenly."""


class AxisForm:
    """What one axis varies, and its values.

    Args:
        room: what the elements' names begin with.
    """

    def __init__(self, label: str, room: str, kind: str):
        choices = [(title, key) for key, title in TITLES.items()]
        choices = choices if kind != NONE else [(tr("Nothing"), NONE), *choices]
        self.kind = gr.Dropdown(choices, value=kind, label=label, filterable=False, elem_id=f"{room}-kind")
        self.typed = gr.Textbox(
            USUAL.get(kind, ""),
            label=_label(kind),
            max_lines=8,
            visible=kind in USUAL,
            elem_id=f"{room}-values",
        )
        self.chosen = gr.Dropdown(
            [], label=tr("Which"), multiselect=True, visible=kind in CHOSEN, elem_id=f"{room}-adapters"
        )
        self.subject = gr.Dropdown(
            [], label=tr("Of which adapter"), visible=kind == "weight", elem_id=f"{room}-subject"
        )

    @property
    def fields(self) -> list[Any]:
        """Every field."""
        return [self.kind, self.typed, self.chosen, self.subject]

    def told(self, values: dict[Any, Any]) -> AxisFields:
        """What the fields hold."""
        kind, typed, chosen, subject = (values[field] for field in self.fields)
        return AxisFields(kind, typed or "", chosen or (), subject or "")

    def show(self, kind: str, chosen: list[str] | None = None) -> Updates:
        """The fields of a kind of axis."""
        several = gr.update(visible=kind in CHOSEN, value=chosen or [])
        return {
            self.kind: kind,
            self.typed: gr.update(
                visible=kind in USUAL,
                value=USUAL.get(kind, ""),
                lines=3 if kind == "prompt" else 1,
                label=_label(kind),
            ),
            self.chosen: several,
            self.subject: gr.update(visible=kind == "weight"),
        }


def _label(kind: str) -> str:
    """What the field of typed values is called."""
    return tr("One in each line") if kind == "prompt" else tr("Values")


class DrawSheetForm:
    """Columns, rows, and the button that draws the sheet."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        about = tr("Many pictures on one page, to see what changes what. All else is as above.")
        html(f'<p class="hint">{words.text(about)}</p>')
        with gr.Column(elem_classes="fields"):
            self.across = AxisForm(tr("Columns"), "sheet-x", "prompt")
        with gr.Column(elem_classes="fields"):
            self.down = AxisForm(tr("Rows"), "sheet-y", NONE)
        with gr.Row(elem_classes="controls"):
            self.draw = gr.Button(tr("Draw the sheet"), size="md", min_width=130, elem_id="draw-sheet")

    @property
    def inputs(self) -> set[Any]:
        """Every field."""
        return {*self.across.fields, *self.down.fields}

    @property
    def fields(self) -> list[Any]:
        """Every field, in order."""
        return [*self.across.fields, *self.down.fields]

    def wire(self) -> None:
        """Lets the fields follow the kinds."""
        for axis in (self.across, self.down):
            axis.kind.input(lambda kind, axis=axis: self.follow(axis, kind), axis.kind, axis.fields, **QUIET)

    def sides(self, values: dict[Any, Any]) -> list[AxisFields]:
        """What the fields hold: columns and rows."""
        return [self.across.told(values), self.down.told(values)]

    def entries(self) -> dict[str, Entry]:
        """The library, by the keys of its adapters."""
        return {cards.key(entry, self.outputs): entry for entry in library.entries(self.outputs)}

    def follow(self, axis: AxisForm, kind: str) -> Updates:
        """The fields of a kind that was chosen, with what there is to choose from."""
        entries = self.entries()
        shown = axis.show(kind)
        states = [key for key, entry in entries.items() if entry.origin is Origin.CHECKPOINT]
        wanted = states if kind == "checkpoint" else [key for key in entries if key not in states]
        named = {key: name for name, key in cards.choices(list(entries.values()), self.outputs)}
        offered = [(named[key], key) for key in wanted]
        run = next((entries[key].run for key in states), "")
        first = spread(sheets.states(run, entries)) if kind == "checkpoint" else wanted[:2]
        shown[axis.chosen] = gr.update(choices=offered, value=first, visible=kind in CHOSEN)
        shown[axis.subject] = gr.update(
            choices=[(tr("The only one"), ""), *((named[key], key) for key in entries)],
            value="",
            visible=kind == "weight",
        )
        return shown

    def of_run(self, run: str, prompts: list[str]) -> Updates:
        """The fields of a sheet of a run's saved states and its preview prompts."""
        found = spread(sheets.states(run, self.entries()))
        across, down = self.follow(self.across, "checkpoint"), self.follow(self.down, "prompt")
        across[self.across.chosen]["value"] = found
        down[self.down.typed]["value"] = "\n".join(prompts) or USUAL["prompt"]
        return {**across, **down}


def spread(keys: list[str]) -> list[str]:
    """At most ``_MOST_STATES``, evenly chosen, with the first and the last."""
    if len(keys) <= _MOST_STATES:
        return keys
    return [keys[i * (len(keys) - 1) // (_MOST_STATES - 1)] for i in range(_MOST_STATES)]
