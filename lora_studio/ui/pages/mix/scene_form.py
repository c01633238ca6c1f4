"""The fields that say what the Mix page draws."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.config.specs import SPECS
from lora_studio.ui.pages.mix import image_specs
from lora_studio.ui.pages.mix.image_specs import Scene
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html

_PROMPT = "cat"


class SceneForm:
    """Prompt, seed, base model, and below a fold the sampler's numbers."""

    def __init__(self, outputs: Path):
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
            predicts = SPECS["prediction"]
            self.prediction = gr.Dropdown(
                [(option.title, option.name) for option in predicts.options],
                value=predicts.default,
                label=predicts.label,
                info="What the base model predicts.",
                elem_id="mix-prediction",
            )
            weights = SPECS["prompt_weights"]
            self.prompt_weights = gr.Checkbox(
                weights.default, label=weights.label, info=weights.help, elem_id="mix-prompt-weights"
            )

    @property
    def inputs(self) -> set[Any]:
        """Every field."""
        numbers = {self.seed, self.steps, self.guidance}
        return {self.base, self.prompt, self.negative, self.prediction, self.prompt_weights} | numbers

    def scene(self, values: dict[Any, Any]) -> Scene:
        """What the fields hold."""
        return Scene(
            base=values[self.base],
            prompt=values[self.prompt],
            negative=values[self.negative],
            seed=values[self.seed],
            steps=values[self.steps],
            guidance=values[self.guidance],
            prediction=values[self.prediction],
            prompt_weights=values[self.prompt_weights],
        )

    def wire(self) -> list[Any]:
        """Lets the button draw a new seed.

        Returns:
            the events after which another image is to be drawn.
        """
        fields = (self.prompt, self.negative, self.seed, self.steps, self.guidance)
        new_seed = self.reseed.click(lambda: random.randrange(2**31), None, self.seed, **QUIET)
        chosen = (self.base.input, self.prediction.input, self.prompt_weights.input, new_seed.then)
        return [*(event for field in fields for event in (field.submit, field.blur)), *chosen]
