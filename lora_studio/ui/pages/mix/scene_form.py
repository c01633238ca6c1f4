"""The fields that say what the Mix page draws."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.config.specs import SPECS
from lora_studio.ui.form import Form
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.mix import image_specs
from lora_studio.ui.pages.mix.image_specs import Scene
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html

_PROMPT = "cat"
_HELP = {
    "text_encoders": f"{SPECS['text_encoders'].help} One path per line.",
    "prediction": "What the base model predicts.",
    "zero_snr": "Whether its noise ends without any signal.",
    "flow_shift": "For a rectified flow. 0 takes the model's own.",
    "clip_skip": "For SD 1.x: 1 or 2. 0 takes what the adapters were trained with, or else the base model.",
}
"""Of settings that mean something else here than in training, or need fewer words."""


class SceneForm:
    """Prompt, seed, base model, and below a fold the sampler's numbers."""

    def __init__(self, outputs: Path):
        self.reading = Form({})
        """How the base model is read."""
        html("<h2>Image</h2>")
        self.prompt = gr.Textbox(_PROMPT, label="Prompt", max_lines=3, elem_id="mix-prompt")
        with gr.Row(elem_classes="seeded", equal_height=True):
            seed = SPECS["preview_seed"].default
            self.seed = gr.Number(seed, label="Seed", precision=0, min_width=90, elem_id="mix-seed")
            self.reseed = gr.Button("New seed", size="md", min_width=100, elem_id="mix-reseed")
        self.base = gr.Dropdown(
            image_specs.bases(outputs, ""),
            value="starter",
            label="Base model",
            info="A model that the adapters were made for: the built-in starter, or the path of one of yours.",
            allow_custom_value=True,
            elem_id="mix-base",
        )
        with gr.Accordion("More", open=False, elem_classes="fold", elem_id="mix-more"):
            self._place_more()

    def _place_more(self) -> None:
        steps, guidance = SPECS["preview_steps"], SPECS["guidance"]
        with gr.Column(elem_classes="fields"):
            self.steps = gr.Number(
                steps.default, label="Steps", info="Denoising steps.", precision=0, elem_id="mix-steps"
            )
            self.guidance = gr.Number(
                guidance.default, label="Guidance", info="How strictly it follows the prompt.", elem_id="mix-guidance"
            )
            self.negative = gr.Textbox(
                label="Negative prompt", info="What it should avoid.", max_lines=2, elem_id="mix-negative"
            )
            weights = SPECS["prompt_weights"]
            self.prompt_weights = gr.Checkbox(
                weights.default, label=weights.label, info=weights.help, elem_id="mix-prompt-weights"
            )
            for key in image_specs.READING:
                self.reading.field(key, info=_HELP.get(key, SPECS[key].help), elem_id=f"mix-{key.replace('_', '-')}")

    @property
    def inputs(self) -> set[Any]:
        """Every field."""
        numbers = {self.seed, self.steps, self.guidance}
        return {self.base, self.prompt, self.negative, self.prompt_weights, *self.reading.components} | numbers

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
            base_read={key: values[field] for key, field in self.reading.fields.items()},
        )

    def fill(self, base_read: Mapping[str, Any]) -> Updates:
        """Shows how a base model is read: the settings that are not the default."""
        return self.reading.fill({key: base_read.get(key, SPECS[key].default) for key in image_specs.READING})

    def wire(self) -> list[Any]:
        """Lets the button draw a new seed. The base model's own events are the page's.

        Returns:
            the events after which another image is to be drawn.
        """
        chosen = [field for field in self.reading.components if isinstance(field, gr.Dropdown)]
        typed = [field for field in self.reading.components if isinstance(field, gr.Textbox | gr.Number)]
        fields = (self.prompt, self.negative, self.seed, self.steps, self.guidance, *typed)
        new_seed = self.reseed.click(lambda: random.randrange(2**31), None, self.seed, **QUIET)
        events = [event for field in fields for event in (field.submit, field.blur)]
        return [*events, *(field.input for field in (*chosen, self.prompt_weights)), new_seed.then]
