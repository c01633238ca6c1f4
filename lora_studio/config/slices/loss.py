"""What a step minimizes: the prediction, its loss and weights."""

from __future__ import annotations

from typing import ClassVar, Literal

from lora_studio.config.declaration import Choice, Group, Level, NamedChoice, SettingsSlice, setting
from lora_studio.diffusion import registry as processes


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
    loss: Literal["mse", "huber"] = setting(
        "mse",
        "Loss",
        "Squared error, or the Huber loss, which gives outliers less weight.",
        choices={"mse": "Mean squared error", "huber": "Huber"},
    )
    huber_delta: float = setting(
        0.1,
        "Huber delta",
        "The Huber loss is quadratic up to this error and linear above it.",
        Level.EXPERT,
        gt=0,
        le=10,
    )
    min_snr_gamma: float = setting(
        5.0,
        "Min-SNR γ",
        "Limits the weight of timesteps with little noise, so that they do not outweigh the others (Hang et al. "
        "2023); 0 switches it off.",
        ge=0,
        le=100,
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
    noise_offset: float = setting(
        0.0,
        "Noise offset",
        "Helps with styles much darker or brighter than the base model's own images. 0.05 is a mild value.",
        ge=0,
        le=1,
    )
