"""What a run is about: pictures, base model, name, steps, seed."""

from __future__ import annotations

from typing import ClassVar

from pydantic import field_validator

from lora_studio.config.declaration import Group, Level, SettingsSlice, setting
from lora_studio.language import tr

PATH_SIGNS = frozenset("/\\")
"""What a run's name must not contain: it would be cut to its end."""


class RunSettings(SettingsSlice):
    """What a run is about."""

    group: ClassVar[Group] = Group.RUN

    data: str = setting(
        "",
        "Pictures",
        "Folder of pictures, with captions beside them if there are any. A .toml file of pairs, of prompts or of "
        "pictures, trains a slider instead.",
        Level.JOB,
    )
    base: str = setting(
        "starter",
        "Base model",
        "The built-in starter model, a diffusers folder, a .safetensors checkpoint, or the hub name of a downloaded "
        "model.",
        Level.JOB,
    )
    vae: str = setting(
        "",
        "VAE",
        "A .safetensors file with the VAE, for a base model without one or in place of its own.",
        Level.JOB,
    )
    text_encoders: list[str] = setting(
        list,
        "Text encoders",
        "The .safetensors files of the text encoders, for a base model without them or in place of its own.",
        Level.JOB,
    )
    name: str = setting(
        "",
        "Name",
        "Name of the run and of the adapter's file. If empty, the name of the folder of pictures.",
        Level.JOB,
    )
    trigger: str = setting(
        "",
        "Trigger word",
        "Goes before every caption that lacks it. In a prompt it brings up the style.",
        Level.BASIC,
    )
    start_from: str = setting(
        "",
        "Start from adapter",
        "An adapter to continue from, whoever made it: a .safetensors file, or a folder that peft wrote. If empty, the "
        "run starts from nothing.",
    )
    steps: int = setting(
        1000,
        "Steps",
        "More steps bring the style closer; with too many, subjects fade.",
        Level.BASIC,
        "steps",
        ge=1,
        le=1_000_000,
    )
    epochs: int = setting(
        0,
        "Epochs",
        "How often to see each picture, times its repeats, in place of the number of steps; 0 goes by steps.",
        unit="epochs",
        ge=0,
        le=100_000,
    )
    seed: int = setting(
        0,
        "Seed",
        "With the same seed, settings and pictures, a run draws the same noise in the same order. With "
        '"Deterministic" it also gives the same adapter.',
        ge=0,
        le=2**31 - 1,
    )

    @field_validator("name")
    @classmethod
    def _require_name(cls, name: str) -> str:
        if PATH_SIGNS & set(name):
            raise ValueError(tr("must not contain / or \\"))
        return name

    @property
    def has_pairs(self) -> bool:
        """Whether ``data`` names a file of prompt pairs in place of a folder of pictures."""
        return names_pairs(self.data)


def names_pairs(data: str) -> bool:
    """Whether ``data`` names a file of prompt pairs.

    >>> [names_pairs(data) for data in ("pairs.toml", " Pairs.TOML ", "pictures", "toml")]
    [True, True, False, False]
    """
    return data.strip().lower().endswith(".toml")
