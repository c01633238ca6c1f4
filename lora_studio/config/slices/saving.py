"""Which states are kept."""

from __future__ import annotations

from typing import ClassVar

from lora_studio.config.declaration import Group, Level, SettingsSlice, setting


class SavingSettings(SettingsSlice):
    """Which states are kept."""

    group: ClassVar[Group] = Group.SAVING

    checkpoint_every: int = setting(
        250,
        "Save every",
        "Steps between saved states, from which a run can resume. 0 saves by time alone.",
        ge=0,
        le=1_000_000,
        unit="steps",
    )
    checkpoint_minutes: float = setting(
        10.0,
        "Save after",
        "Longest time between saved states. 0 saves by steps alone. One is always saved at the end.",
        unit="minutes",
        ge=0,
        le=1440,
    )
    keep_checkpoints: int = setting(
        5,
        "States kept",
        "Number of the latest saved states that are kept. Starred ones are kept as well.",
        ge=1,
        le=10_000,
    )
    keep_every: int = setting(
        0,
        "Keep every",
        "States at multiples of this many steps are also kept; 0 keeps none of them.",
        Level.EXPERT,
        "steps",
        ge=0,
        le=1_000_000,
    )
    keep_previewed: int = setting(
        10,
        "States kept with previews",
        "The adapter is kept with each preview, so that every look can be had: this many of the latest. 0 keeps none.",
        ge=0,
        le=1000,
    )
