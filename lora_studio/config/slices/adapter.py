"""What is trained: method, rank, layers."""

from __future__ import annotations

from typing import ClassVar, Literal

from lora_studio.config.declaration import Group, Level, SettingsSlice, setting
from lora_studio.methods import registry as methods


class AdapterSettings(SettingsSlice):
    """What is trained."""

    group: ClassVar[Group] = Group.ADAPTER

    method: str = setting(
        "lora",
        "Method",
        "How the adapter changes a layer.",
        choices=methods.METHODS.values,
    )
    rank: int = setting(
        16, "Rank", "Size of the adapter: 4–8 for a simple look, 16–32 for a rich style.", Level.BASIC, ge=1, le=1024
    )
    alpha: float = setting(16.0, "Alpha", "Scales the adapter by alpha ÷ rank.", gt=0, le=4096)
    rslora: bool = setting(
        False,
        "Rank-stabilized scale",
        "Scale by alpha ÷ √rank instead, so that high ranks learn as fast as low ones (rsLoRA, Kalajdzievski 2023).",
    )
    dropout: float = setting(
        0.0, "Adapter dropout", "Share of the adapter's inputs that are set to zero in training.", ge=0, lt=1
    )
    targets: Literal["qv", "attention", "attention+ff", "attention+ff+conv"] = setting(
        "attention",
        "Layers",
        "Layers of the base model that the adapter changes. More layers hold the style closer and take more memory.",
        choices={
            "qv": "Queries and values",
            "attention": "Attention",
            "attention+ff": "Attention and feed-forward",
            "attention+ff+conv": "Attention, feed-forward, convolutions",
        },
    )
    train_text: bool = setting(
        False,
        "Train text encoders",
        "Helps with a trigger word that the base model does not know, but other words are soon forgotten. Slower.",
    )
    init: Literal["gaussian", "kaiming"] = setting(
        "gaussian",
        "Initialization",
        "Distribution of the first factor's initial values. The second starts at zero, so that step 0 is the base "
        "model itself.",
        Level.EXPERT,
        choices={"gaussian": "Gaussian", "kaiming": "Kaiming"},
    )
