"""The fields of the Draw page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.config.specs import SPECS
from lora_studio.diffusion import samplers
from lora_studio.language import declared, tr
from lora_studio.ui import words
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.draw import sizes, wall
from lora_studio.ui.pages.draw.order import MOST, DrawFields
from lora_studio.ui.scene.base_form import BaseForm
from lora_studio.ui.theme import html

_PROMPT = "cat"
_SHAPES = [*((shape, shape) for shape in sizes.SHAPES), (tr("Other"), sizes.OWN)]
_FIRST = DrawFields("")


class DrawForm:
    """Prompt, size, seed, base model, and below folds what is changed less often. ``place`` makes the upper half, above
    the adapters, ``place_rest`` the lower one.
    """

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self.fields: dict[str, Any] = {}
        """By the names of ``DrawFields``; those on how the base model is read are ``base_form``'s."""

    def place(self) -> None:
        """The prompts."""
        self.fields["prompt"] = gr.Textbox(
            _PROMPT,
            label=tr("Prompt"),
            lines=3,
            max_lines=10,
            placeholder=tr("What the picture shows"),
            elem_id="draw-prompt",
        )
        self.tags = html(js_on_load=wall.ACT, elem_id="draw-tags")
        self.fields["negative"] = gr.Textbox(
            label=tr("Negative prompt"), max_lines=4, placeholder=tr("What it should avoid"), elem_id="draw-negative"
        )

    def place_rest(self) -> None:
        """Everything else."""
        self._place_size()
        with gr.Row(elem_classes="seeded draw-seed", equal_height=True):
            self.fields["count"] = gr.Number(
                1, label=tr("Pictures"), precision=0, minimum=1, maximum=MOST, min_width=84, elem_id="draw-count"
            )
            seed = SPECS["preview_seed"].default
            self.fields["seed"] = gr.Number(seed, label=tr("Seed"), precision=0, min_width=110, elem_id="draw-seed")
            self.new_seed = gr.Checkbox(True, label=tr("New each time"), min_width=130, elem_id="draw-new-seed")
        self.base_form = BaseForm(self.outputs, "draw")
        self.fields["base"] = self.base_form.base
        self.start_fold = gr.Accordion(
            tr("Start from a picture"), open=False, elem_classes="fold", elem_id="draw-start-fold"
        )
        with self.start_fold:
            self._place_start()
        with gr.Accordion(tr("Draw it larger"), open=False, elem_classes="fold", elem_id="draw-larger-fold"):
            self._place_larger()
        with gr.Accordion(tr("More"), open=False, elem_classes="fold", elem_id="draw-more"):
            self._place_more()

    def _place_size(self) -> None:
        with gr.Row(elem_classes="sizes", equal_height=True):
            self.fields["shape"] = gr.Radio(_SHAPES, value="1:1", label=tr("Size"), elem_id="draw-shape", min_width=240)
            self.fields["upright"] = gr.Checkbox(label=tr("Upright"), min_width=100, elem_id="draw-upright")
        with gr.Column(elem_classes="fields tight", visible=False) as self.own_size:
            for name, label in (("width", tr("Width (pixels)")), ("height", tr("Height (pixels)"))):
                self.fields[name] = gr.Number(label=label, precision=0, step=64, elem_id=f"draw-{name}")
        self.size = html(elem_id="draw-size")

    def _place_start(self) -> None:
        self.fields["start"] = gr.State("")
        self.dropped = gr.Image(
            type="filepath",
            label=tr("A picture to start from"),
            show_label=False,
            sources=["upload", "clipboard"],
            placeholder=tr("Drop an image file here to upload"),
            height=180,
            elem_id="draw-start",
        )
        self.fields["start_strength"] = gr.Slider(
            0,
            1,
            _FIRST.start_strength,
            step=0.05,
            label=tr("Change"),
            info=tr("0 keeps the picture, 1 leaves nothing of it."),
            elem_id="draw-change",
        )

    def _place_larger(self) -> None:
        about = tr("Enlarges the picture, then draws over it for detail. It takes several times as long.")
        html(f'<p class="hint">{words.text(about)}</p>')
        self.fields["larger"] = gr.Checkbox(label=tr("Draw it larger"), elem_id="draw-larger")
        with gr.Column(elem_classes="fields tight"):
            self.fields["scale"] = gr.Number(
                2.0, label=tr("Times larger"), info=tr("1 to 4."), step=0.25, elem_id="draw-scale"
            )
            self.fields["scale_strength"] = gr.Number(
                0.5, label=tr("Redrawn"), info=tr("0: nothing, 1: all."), step=0.05, elem_id="draw-scale-strength"
            )
            self.fields["scale_steps"] = gr.Number(
                0, label=tr("Steps"), info=tr("0: as many as above."), precision=0, elem_id="draw-scale-steps"
            )

    def _place_more(self) -> None:
        sampler, weights = SPECS["sampler"], SPECS["prompt_weights"]
        with gr.Column(elem_classes="fields"):
            self.fields["steps"] = gr.Number(
                _FIRST.steps, label=tr("Steps"), info=tr("Denoising steps."), precision=0, elem_id="draw-steps"
            )
            self.fields["guidance"] = gr.Number(
                _FIRST.guidance,
                label=tr("Guidance"),
                info=tr("How strictly it follows the prompt."),
                step=0.5,
                elem_id="draw-guidance",
            )
            self.fields["sampler"] = gr.Dropdown(
                [(option.title, option.name) for option in sampler.options],
                value=sampler.default,
                label=tr("Sampler"),
                info=about_sampler(sampler.default),
                filterable=False,
                elem_id="draw-sampler",
            )
            self.fields["prompt_weights"] = gr.Checkbox(
                weights.default, label=weights.label, info=weights.help, elem_id="draw-prompt-weights"
            )
            self.base_form.place_reading()

    @property
    def inputs(self) -> set[Any]:
        """Every field."""
        return {*self.fields.values(), self.new_seed, *self.base_form.inputs}

    @property
    def filled(self) -> list[Any]:
        """What ``fill`` changes."""
        return [*self.fields.values(), self.own_size, self.dropped, self.start_fold, self.new_seed]

    def asked(self, values: dict[Any, Any]) -> DrawFields:
        """What the fields hold."""
        held = {name: values[field] for name, field in self.fields.items()}
        return DrawFields(**held, base_read=self.base_form.read(values))

    def fill(self, told: Mapping[str, Any]) -> Updates:
        """Puts values into their fields, by the names of ``DrawFields``; the others stay."""
        updates: Updates = {self.fields[name]: value for name, value in told.items() if name in self.fields}
        if "shape" in told:
            updates[self.own_size] = gr.update(visible=told["shape"] == sizes.OWN)
        if "start" in told:
            updates[self.dropped] = told["start"] or None
        return updates


def about_sampler(name: str) -> str:
    """What a sampler is for, and what is usual with it."""
    one = samplers.DECLARED[name]
    purpose = str(declared(one.purpose))
    purpose = purpose[:1].upper() + purpose[1:]
    if not one.from_the_end:
        return tr("{purpose}.", purpose=purpose)
    return tr(
        "{purpose}. Usual: {steps} steps, guidance {guidance:g}.",
        purpose=purpose,
        steps=one.steps,
        guidance=one.guidance,
    )
