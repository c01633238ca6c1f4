"""The fields that say what the Mix page draws."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.config.specs import SPECS
from lora_studio.language import tr
from lora_studio.ui import words
from lora_studio.ui.pages.mix.image_specs import Scene
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.scene.base_form import BaseForm
from lora_studio.ui.theme import html

_PROMPT = "cat"


class SceneForm:
    """Prompt, seed, base model, and below a fold the sampler's numbers."""

    def __init__(self, outputs: Path):
        html(f"<h2>{words.text(tr('Picture'))}</h2>")
        self.prompt = gr.Textbox(_PROMPT, label=tr("Prompt"), max_lines=3, elem_id="mix-prompt")
        with gr.Row(elem_classes="seeded", equal_height=True):
            seed = SPECS["preview_seed"].default
            self.seed = gr.Number(seed, label=tr("Seed"), precision=0, min_width=90, elem_id="mix-seed")
            self.reseed = gr.Button(tr("New seed"), size="md", min_width=100, elem_id="mix-reseed")
        self.base_form = BaseForm(outputs, "mix")
        self.base, self.reading = self.base_form.base, self.base_form.reading
        with gr.Accordion(tr("More"), open=False, elem_classes="fold", elem_id="mix-more"):
            self._place_more()

    def _place_more(self) -> None:
        steps, guidance = SPECS["preview_steps"], SPECS["guidance"]
        with gr.Column(elem_classes="fields"):
            self.steps = gr.Number(
                steps.default, label=tr("Steps"), info=tr("Denoising steps."), precision=0, elem_id="mix-steps"
            )
            self.guidance = gr.Number(
                guidance.default,
                label=tr("Guidance"),
                info=tr("How strictly it follows the prompt."),
                elem_id="mix-guidance",
            )
            self.negative = gr.Textbox(
                label=tr("Negative prompt"), info=tr("What it should avoid."), max_lines=2, elem_id="mix-negative"
            )
            weights = SPECS["prompt_weights"]
            self.prompt_weights = gr.Checkbox(
                weights.default, label=weights.label, info=weights.help, elem_id="mix-prompt-weights"
            )
            self.base_form.place_reading()

    @property
    def inputs(self) -> set[Any]:
        """Every field."""
        numbers = {self.seed, self.steps, self.guidance}
        return {self.prompt, self.negative, self.prompt_weights, *self.base_form.inputs} | numbers

    def scene(self, values: dict[Any, Any]) -> Scene:
        """What the fields hold."""
        return Scene(
            base=values[self.base],
            prompt=values[self.prompt],
            negative=values[self.negative],
            seed=values[self.seed],
            steps=values[self.steps],
            guidance=values[self.guidance],
            prompt_weights=values[self.prompt_weights],
            base_read=self.base_form.read(values),
        )

    def wire(self) -> tuple[list[Any], Any]:
        """Lets the button draw a new seed. The base model's own events are the page's.

        Returns:
            the events, and the handler, after which another image is to be drawn.
        """
        chosen = [field for field in self.reading.components if isinstance(field, gr.Dropdown)]
        typed = [field for field in self.reading.components if isinstance(field, gr.Textbox | gr.Number)]
        fields = (self.prompt, self.negative, self.seed, self.steps, self.guidance, *typed)
        new_seed = self.reseed.click(lambda: random.randrange(2**31), None, self.seed, **QUIET)
        events = [event for field in fields for event in (field.submit, field.blur)]
        return [*events, *(field.input for field in (*chosen, self.prompt_weights))], new_seed
