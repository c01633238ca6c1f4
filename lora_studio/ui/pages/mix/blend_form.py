"""The fields that say how a mix is blended, made from the declarations in ``adapters.blend_methods``."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lora_studio.adapters.blend_methods import METHODS, RANK, BlendMethod, BlendParameter, parameters
from lora_studio.adapters.recipe import Blend
from lora_studio.language import declared, tr
from lora_studio.ui import words
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.mix.image_specs import ChosenBlend
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html


class BlendForm:
    """The method, and a field for each parameter, of which those of the method are visible."""

    def __init__(self):
        offered = _offered()
        first = next(iter(offered.values()))
        choices = [(declared(method.title), key) for key, method in offered.items()]
        self.method = gr.Radio(
            choices,
            value=first.key,
            label=tr("How to add them up"),
            show_label=False,
            container=False,
            elem_id="mix-method",
        )
        self.about = html(_about(first))
        with gr.Column(elem_classes="fields"):
            self.parameters = {key: _field(one, _takes(first, key)) for key, one in parameters().items()}
        self.cost = html(elem_id="mix-cost")

    @property
    def inputs(self) -> set[Any]:
        """Every field."""
        return {self.method, *self.parameters.values()}

    def chosen(self, values: dict[Any, Any]) -> ChosenBlend:
        """What the fields hold: the method, and of the parameters those that it takes."""
        method = METHODS[values[self.method]]
        taken = {key: values[field] for key, field in self.parameters.items() if _takes(method, key)}
        return ChosenBlend(method.key, taken)

    def fill(self, blend: Blend | None) -> Updates:
        """The method and its parameters as ``blend`` was made; the exact sum for None, and where the page has another
        name for its method.
        """
        known = blend if blend and blend.method in _offered() else None
        if not known:
            return {self.method: "exact"}
        held = {RANK.key: known.rank, **known.parameters}
        return {self.method: known.method, **{self.parameters[key]: value for key, value in held.items()}}

    def wire(self) -> tuple[list[Any], Any]:
        """Shows the fields of the chosen method.

        Returns:
            the events, and the handler, after which another image is to be drawn.
        """
        shown = self.method.change(self.show, self.method, [self.about, *self.parameters.values()], **QUIET)
        return [event for field in self.parameters.values() for event in (field.submit, field.blur)], shown

    def show(self, key: str) -> Updates:
        """The help of the method ``key``, and the fields that it takes."""
        method = METHODS[key]
        visible = {field: gr.update(visible=_takes(method, name)) for name, field in self.parameters.items()}
        return {self.about: _about(method), **visible}


def _offered() -> dict[str, BlendMethod]:
    """The methods of the page. Those that subtract are left out: here a negative weight does it."""
    return {key: method for key, method in METHODS.items() if not method.subtracts}


def _takes(method: BlendMethod, key: str) -> bool:
    return key in (RANK.key, *(one.key for one in method.parameters))


def _field(parameter: BlendParameter, visible: bool) -> gr.Number:
    return gr.Number(
        parameter.default,
        label=declared(parameter.label),
        info=declared(parameter.help),
        precision=0 if parameter.whole else None,
        step=parameter.step,
        visible=visible,
        elem_id=f"blend-{parameter.key}",
    )


def _about(method: BlendMethod) -> str:
    return f'<p class="blurb">{words.text(declared(method.help))}</p>'
