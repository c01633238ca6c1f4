"""How a step changes the adapter: optimizer, rates, batch."""

from __future__ import annotations

from typing import ClassVar, Literal

from lora_studio.config.declaration import Group, Level, SettingsSlice, setting
from lora_studio.optim import registry as optimizers


class OptimizerSettings(SettingsSlice):
    """How a step changes the adapter."""

    group: ClassVar[Group] = Group.OPTIMIZER

    optimizer: str = setting(
        "adamw",
        "Optimizer",
        "How gradients become steps. Choosing another one also sets its usual learning rate.",
        choices=optimizers.OPTIMIZERS.values,
    )
    learning_rate: float = setting(
        3e-4,
        "Learning rate",
        "Size of each step. Too high a rate destroys the image, too low a rate learns nothing.",
        Level.BASIC,
        gt=0,
        le=10,
    )
    text_learning_rate: float = setting(
        5e-5,
        "Text encoder rate",
        "Learning rate of the text encoders, if they are trained. Optimizers with a single rate ignore it.",
        gt=0,
        le=10,
    )
    lora_plus: float = setting(
        1.0,
        "LoRA+ ratio",
        "The second factor's learning rate as a multiple of the first's (Hayou et al. 2024); 1 is plain LoRA.",
        ge=1,
        le=256,
        unit="×",
    )
    weight_decay: float = setting(
        0.01, "Weight decay", "Pulls the adapter's weights towards zero.", Level.EXPERT, ge=0, le=1
    )
    schedule: Literal["constant", "cosine", "linear"] = setting(
        "cosine",
        "Schedule",
        "How the learning rate falls towards the last step.",
        choices={"constant": "Constant", "cosine": "Cosine", "linear": "Linear"},
    )
    warmup: float = setting(
        0.04, "Warm-up", "Share of the steps over which the learning rate rises from zero.", ge=0, le=0.5
    )
    batch: int = setting(1, "Batch size", "Pictures in each batch.", ge=1, le=256, unit="pictures")
    accumulate: int = setting(
        1,
        "Gradient accumulation",
        "Batches that are accumulated into one step: a larger effective batch in the same memory.",
        ge=1,
        le=256,
    )
    clip: float = setting(
        1.0,
        "Gradient clipping",
        "Largest norm of a step's gradient; a longer one is scaled down to it. 0 switches it off.",
        Level.EXPERT,
        ge=0,
        le=1000,
    )
    ema: float = setting(
        0.0,
        "Moving average (EMA)",
        "Decay of an exponential moving average of the adapter, which is then what is exported. 0 switches it off, "
        "0.99 is usual.",
        ge=0,
        lt=1,
    )
