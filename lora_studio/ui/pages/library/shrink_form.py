"""The fields that shrink an adapter: by which measure, at what cost, and how its images change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.language import tr
from lora_studio.runs.library import Entry
from lora_studio.ui.outcome import WORK, Updates, told
from lora_studio.ui.pages.library import cards, details, work
from lora_studio.ui.pages.library.look import Look, while_chosen
from lora_studio.ui.pages.library.work import MEASURES, Cut
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html

_HIDDEN = gr.update(visible=False)


class ShrinkForm:
    """The components and their handlers. Saving is offered once the cost is known.

    Args:
        look: what the browser tab sees of the library, a ``Look``.
    """

    def __init__(self, outputs: Path, look: gr.State):
        self.outputs, self.look = outputs, look
        key, first = next(iter(MEASURES.items()))
        with gr.Column(elem_classes="fields"):
            self.measure = gr.Dropdown(
                [(one.name, name) for name, one in MEASURES.items()],
                value=key,
                label=tr("Shrink by"),
                filterable=False,
                elem_id="way",
            )
            self.value = gr.Number(first.start, label=first.label, elem_id="value")
        with gr.Row(elem_classes="controls"):
            self.attempt = gr.Button(tr("See what it costs"), size="md", min_width=130, elem_id="try")
            self.save = gr.Button(
                tr("Save the smaller copy"),
                size="md",
                variant="primary",
                min_width=150,
                visible=False,
                elem_id="save-smaller",
            )
        self.result = html(visible=False, elem_id="shrunk")
        with gr.Column(visible=False) as self.comparison:
            self._place_comparison()

    def _place_comparison(self) -> None:
        with gr.Column(elem_classes="fields"):
            self.prompt = gr.Textbox(label=tr("Draw"), max_lines=1, elem_id="compare-prompt")
            self.base = gr.Textbox(
                label=tr("With the base model"),
                placeholder=tr("starter, or the path of a model"),
                max_lines=1,
                elem_id="compare-base",
            )
        with gr.Row(elem_classes="controls"):
            self.draw_both = gr.Button(tr("Draw before and after"), size="md", min_width=150, elem_id="draw-both")
        self.both = html(visible=False, elem_id="both")

    @property
    def asked(self) -> list[Any]:
        """What is shrunk, and how far."""
        return [self.look, self.measure, self.value]

    @property
    def attempted(self) -> list[Any]:
        """What appears after an attempt."""
        return [self.save, self.result, self.comparison, self.both]

    @property
    def filled(self) -> list[Any]:
        """What ``fill`` changes."""
        return [self.prompt, self.base, *self.attempted]

    def wire(self) -> None:
        """Binds the handlers, but for ``save``."""
        self.measure.input(self.start, self.measure, self.value, **QUIET)
        self.value.change(self.hide, None, self.attempted, trigger_mode="always_last", **QUIET)
        self.attempt.click(self.estimate, self.asked, self.attempted, **WORK)
        self.draw_both.click(self.compare, [*self.asked, self.base, self.prompt], self.both, **WORK)

    def start(self, measure: str) -> dict[str, Any]:
        """The value that a measure starts with, and its label."""
        return gr.update(label=MEASURES[measure].label, value=MEASURES[measure].start)

    def hide(self) -> Updates:
        """Hides what an earlier attempt showed."""
        return dict.fromkeys(self.attempted, _HIDDEN)

    def fill(self, entry: Entry) -> Updates:
        """What the form shows of another adapter."""
        drawn = {self.prompt: details.subject(entry), self.base: details.base_at_hand(entry, self.outputs)}
        return {**drawn, **self.hide()}

    def estimate(self, look: Look, measure: str, value: float | None) -> Iterator[Updates]:
        """What shrinking would cost; only then can it be saved."""
        known = False

        def act() -> str:
            nonlocal known
            shown = work.tried(cards.found(look.chosen, self.outputs), Cut(measure, value))
            known = True
            return shown

        yield {self.save: _HIDDEN, self.comparison: _HIDDEN, self.both: _HIDDEN}
        for update in while_chosen(look, told(tr("Trying…"), act)):
            offered = gr.update(visible=known) if "value" in update else update
            yield {self.save: offered, self.result: update, self.comparison: offered}

    def compare(self, look: Look, measure: str, value: float | None, base: str, prompt: str) -> Iterator[Any]:
        """Images before and after."""

        def act() -> str:
            entry = cards.found(look.chosen, self.outputs)
            return work.drawn(entry, Cut(measure, value), base.strip(), prompt.strip(), self.outputs)

        yield from while_chosen(look, told(tr("Drawing…"), act))
