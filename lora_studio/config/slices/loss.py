"""What a step minimizes: the prediction, its loss and weights."""

from __future__ import annotations

from typing import ClassVar, Literal

from lora_studio.config.declaration import MORE_THAN_ZERO, Choice, Group, Level, NamedChoice, SettingsSlice, setting
from lora_studio.diffusion import registry as processes
from lora_studio.diffusion import weighting


def _predictions() -> list[Choice]:
    return [NamedChoice("auto", "From the model"), *(NamedChoice(p.name, p.title) for p in processes.PROCESSES)]


class LossSettings(SettingsSlice):
    """What a step minimizes."""

    group: ClassVar[Group] = Group.LOSS

    prediction: str = setting(
        "auto",
        "Prediction",
        "What the base model was trained to predict. Auto reads it from its files, and asks the model where they do "
        "not say. A rectified flow without a mark must be set by hand.",
        Level.EXPERT,
        choices=_predictions,
    )
    zero_snr: Literal["auto", "marked", "on", "off"] = setting(
        "auto",
        "Zero terminal SNR",
        "Whether the base model's noise ends without any signal (Lin et al. 2024). Auto reads it from its files; where "
        "they do not say, it is on for SDXL models that predict v. Marked leaves it off there.",
        Level.EXPERT,
        choices={"auto": "From the model", "marked": "Only if its files say so", "on": "On", "off": "Off"},
    )
    flow_shift: float = setting(
        0.0,
        "Flow shift",
        "How far a rectified flow's timesteps are moved towards the noise, in training and in previews. 0 takes the "
        "model's own, or none (1).",
        Level.EXPERT,
        ge=0,
        le=20,
    )
    loss: Literal["mse", "huber", "logcosh", "l1", "mixed"] = setting(
        "mse",
        "Loss",
        "How errors count. Squared ones count most where they are large; the others give outliers less weight.",
        choices={
            "mse": "Mean squared error",
            "huber": "Huber",
            "logcosh": "Log-cosh",
            "l1": "Mean absolute error",
            "mixed": "Squared and absolute",
        },
    )
    huber_delta: float = setting(
        0.1,
        "Huber delta",
        "The loss is quadratic up to about this error and linear above it.",
        Level.EXPERT,
        only={"loss": ["huber", "logcosh"]},
        gt=0,
        le=10,
    )
    huber_schedule: Literal["constant", "snr", "exponential"] = setting(
        "constant",
        "Schedule of delta",
        "Whether delta is the same at all timesteps, or rises from its value at pure noise to 1 where there is no "
        "noise: with the signal-to-noise ratio or exponentially, as in sd-scripts.",
        Level.EXPERT,
        choices={"constant": "Constant", "snr": "By SNR", "exponential": "Exponential"},
        only={"loss": ["huber", "logcosh"]},
    )
    absolute_share: float = setting(
        0.5,
        "Share of absolute errors",
        "How much of the loss is the absolute error; the rest is the squared one.",
        Level.EXPERT,
        only={"loss": ["mixed"]},
        ge=0,
        le=1,
    )
    weighting: str = setting(
        "min-snr",
        "Weights of timesteps",
        "How much the errors at each noise level count.",
        choices=weighting.WEIGHTINGS.values,
    )
    min_snr_gamma: float = setting(
        5.0,
        "Min-SNR γ",
        "Limits the weight of timesteps with little noise, so that they do not outweigh the others (Hang et al. "
        "2023); 0 switches it off.",
        only={"weighting": ["min-snr"]},
        ge=0,
        le=100,
    )
    p2_k: float = setting(
        1.0,
        "P2 k",
        "Timesteps whose signal-to-noise ratio is above this count less.",
        Level.EXPERT,
        only={"weighting": ["p2"]},
        gt=0,
        le=100,
    )
    p2_gamma: float = setting(
        1.0,
        "P2 γ",
        "How much less they count: 0 not at all.",
        Level.EXPERT,
        only={"weighting": ["p2"]},
        ge=0,
        le=4,
    )
    mask_outside: float = setting(
        0.0,
        "Weight outside masks",
        "How much of the loss counts where a mask is black: 0 learns nothing there, 1 as much as where it is white.",
        ge=0,
        le=1,
    )
    mask_balance: Literal["area", "picture"] = setting(
        "area",
        "Balance of masks",
        "Whether all that is learned of the pictures counts the same, so that a masked picture counts by its white "
        "area, or all pictures do, however small that area is. On average a picture has the weight of a whole one.",
        choices={"area": "By white area", "picture": "All pictures the same"},
    )
    preserve_weight: float = setting(
        0.0,
        "Preservation",
        "How much it counts that captions without the trigger word are answered as by the base model, so that what is "
        "learned stays out of other prompts. 1 counts as much as the pictures, 0 is off. A step then takes more than "
        "twice as long, and no more memory.",
        ge=0,
        le=100,
    )
    preserve_every: int = setting(
        1,
        "Preserve every",
        "Batches from one with preservation to the next: with 4, a quarter of the time and of the effect.",
        Level.EXPERT,
        unit="batches",
        only={"preserve_weight": MORE_THAN_ZERO},
        ge=1,
        le=1000,
    )
    preserve_class: str = setting(
        "",
        "Word for the trigger",
        "What stands in place of the trigger word in the captions that are preserved: for a subject what it is, such "
        "as dog. Empty leaves the trigger word out, which suits styles.",
        only={"preserve_weight": MORE_THAN_ZERO},
    )
