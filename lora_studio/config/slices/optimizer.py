"""How a step changes the adapter: optimizer, rates, batch."""

from __future__ import annotations

from typing import ClassVar

from lora_studio.config.declaration import MORE_THAN_ZERO, Group, Level, SettingsSlice, setting
from lora_studio.optim import registry as optimizers
from lora_studio.optim import schedules


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
        gt=0,
        le=10,
    )
    text_learning_rate: float = setting(
        5e-5,
        "Text encoder rate",
        "Learning rate of the text encoders. Optimizers with a single rate ignore it.",
        only={"train_text": [True]},
        gt=0,
        le=10,
    )
    token_learning_rate: float = setting(
        1e-3,
        "Learned tokens' rate",
        "Learning rate of the learned tokens; 0.0005 to 0.005 is usual. Optimizers with a single rate ignore it.",
        only={"learned_tokens": MORE_THAN_ZERO},
        gt=0,
        le=10,
    )
    find_rate: bool = setting(
        False,
        "Find the rate",
        "Before the first step, tries 60 steps with a rising learning rate and forgets what they taught. The run takes "
        "a quarter of the rate at which the loss was lowest; the other rates change by as much.",
        only={"optimizer": [row.name for row in optimizers.OPTIMIZERS.values() if row.rate_can_be_found]},
    )
    lora_plus: float = setting(
        1.0,
        "LoRA+ ratio",
        "The second factor's learning rate as a multiple of the first's (Hayou et al. 2024); 1 is plain LoRA.",
        ge=1,
        le=256,
        unit="×",
        only={"method": ["lora", "dora", "pissa", "lora-ga"]},
    )
    weight_decay: float = setting(
        0.01, "Weight decay", "Pulls the adapter's weights towards zero.", Level.EXPERT, ge=0, le=1
    )
    schedule: str = setting(
        "cosine",
        "Schedule",
        "How the learning rate falls towards the last step. Optimizers with a schedule of their own ignore it.",
        choices=schedules.SCHEDULES.values,
    )
    cycles: int = setting(
        3, "Cycles", "How many cosines the steps are divided into.", ge=1, le=100, only={"schedule": ["restarts"]}
    )
    decay_share: float = setting(
        0.2,
        "Decay",
        "Share of the steps, at the end, over which the learning rate falls.",
        gt=0,
        le=1,
        only={"schedule": ["stable-decay"]},
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
    max_norm: float = setting(
        0.0,
        "Largest norm of a layer",
        "After each step, a layer that the adapter changes by more than this (Frobenius norm) is scaled down to it. "
        "Keeps single layers from burning out; 1 is usual, 0 switches it off.",
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
