"""The fields that say which base model is drawn with, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.config.specs import SPECS
from lora_studio.errors import StudioError
from lora_studio.language import tr
from lora_studio.ui.form import Form
from lora_studio.ui.outcome import Updates
from lora_studio.ui.scene import base_reading
from lora_studio.ui.scene.base_reading import READING
from lora_studio.ui.scene.mixture import Mix

_HELP = {
    "text_encoders": tr("{help} One path per line.", help=SPECS["text_encoders"].help),
    "prediction": tr("What the base model predicts."),
    "zero_snr": tr("Whether its noise ends without any signal."),
    "flow_shift": tr("For a rectified flow. 0 takes the model's own."),
    "clip_skip": tr("For SD 1.x: 1 or 2. 0 takes what the adapters were trained with, or else the base model."),
}
"""Of settings that mean something else here than in training, or need fewer words."""


class BaseForm:
    """The base model's field. Those on how it is read are placed by ``place_reading``.

    Args:
        room: what the elements' names begin with.
    """

    def __init__(self, outputs: Path, room: str):
        self.outputs, self.room = outputs, room
        self.reading = Form({})
        self.base = gr.Dropdown(
            base_reading.bases(outputs, ""),
            value="starter",
            label=tr("Base model"),
            info=tr("A model that the adapters were made for: the built-in starter, or the path of one of yours."),
            allow_custom_value=True,
            elem_id=f"{room}-base",
        )

    def place_reading(self) -> None:
        """Places the fields on how it is read."""
        for key in READING:
            self.reading.field(
                key, info=_HELP.get(key, SPECS[key].help), elem_id=f"{self.room}-{key.replace('_', '-')}"
            )

    @property
    def inputs(self) -> set[Any]:
        """Every field."""
        return {self.base, *self.reading.components}

    @property
    def followed(self) -> list[Any]:
        """What ``offer``, ``follow`` and ``fill`` change."""
        return [self.base, *self.reading.components]

    def read(self, values: dict[Any, Any]) -> dict[str, Any]:
        """What the fields on how it is read hold, by the settings of ``READING``."""
        return {key: values[field] for key, field in self.reading.fields.items()}

    def offer(self, mix: Mix, base: str) -> Updates:
        """The base models that fit the adapters of ``mix``; ``base`` if it is one of them or a path."""
        offered = base_reading.bases(self.outputs, mix.family)
        known = [name for _, name in offered]
        fits = base in known or (base != "starter" and bool(base))
        chosen = base if fits else next(iter(known), "")
        return {**self.follow(mix, chosen), self.base: gr.update(choices=offered, value=chosen)}

    def follow(self, mix: Mix, base: str) -> Updates:
        """Reads the base model as the run did that it is taken from. What was typed stays until that changes."""
        read = base_reading.reading(base, mix, self.outputs)
        if read == mix.base_read:
            return {self.base: gr.skip()}
        mix.base_read = read
        return self.fill(read)

    def fill(self, base_read: Mapping[str, Any]) -> Updates:
        """Shows how a base model is read: the settings that are not the default."""
        return self.reading.fill({key: base_read.get(key, SPECS[key].default) for key in READING})

    def restore(self, base_read: object) -> Updates:
        """Shows what the browser kept of how the base model was read; nothing if that makes no sense."""
        try:
            return self.fill(base_reading.read_from(base_read)) if isinstance(base_read, dict) else {}
        except StudioError:
            return {}
