"""How a run of prompt pairs moves or erases a concept."""

from __future__ import annotations

from typing import ClassVar

from lora_studio.config.declaration import Group, SettingsSlice, setting


class SliderSettings(SettingsSlice):
    """How a run of prompt pairs moves or erases a concept."""

    group: ClassVar[Group] = Group.SLIDER

    slider_strength: float = setting(
        2.0,
        "Strength",
        "How far the adapter moves a concept at weight 1, as a multiple of the difference that the pair's own prompts "
        "make (η of the papers). Only for prompt pairs.",
        gt=0,
        le=20,
    )
    slider_steps: int = setting(
        20,
        "Denoising steps",
        "Steps of a whole picture, of which a random number is taken before each training step, so that it learns from "
        "what the adapter draws itself. Fewer are faster. Only for prompt pairs.",
        unit="steps",
        ge=2,
        le=100,
    )
