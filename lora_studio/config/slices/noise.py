"""What a step is trained at: timesteps and noise."""

from __future__ import annotations

from typing import ClassVar

from lora_studio.config.declaration import Group, Level, SettingsSlice, setting
from lora_studio.diffusion import timesteps


class NoiseSettings(SettingsSlice):
    """What a step is trained at."""

    group: ClassVar[Group] = Group.NOISE

    timestep_from: float = setting(
        0.0,
        "Noise from",
        "The least noise that pictures are trained at, as a share of the noise process: 0 is no noise, 1 nothing else. "
        "A folder with noise levels of its own is trained at those within this range.",
        ge=0,
        lt=1,
    )
    timestep_to: float = setting(
        1.0, "Noise to", "The most noise that pictures are trained at, as a share of the noise process.", gt=0, le=1
    )
    timestep_bias: str = setting(
        timesteps.UNIFORM,
        "Timesteps",
        "Which noise levels of the range are trained at more often.",
        choices=timesteps.biases,
    )
    timestep_mean: float = setting(
        -6.0,
        "Mean log-SNR",
        "Around which logarithm of the signal-to-noise ratio timesteps are drawn. Below 0 there is more noise than "
        "signal. Stable Diffusion's own noise goes from 7 down to −5.",
        only={"timestep_bias": [timesteps.LOGNORMAL]},
        ge=-12,
        le=12,
    )
    timestep_width: float = setting(
        2.0,
        "Width of log-SNR",
        "The standard deviation around the mean.",
        only={"timestep_bias": [timesteps.LOGNORMAL]},
        ge=0.5,
        le=12,
    )
    noise_offset: float = setting(
        0.0,
        "Noise offset",
        "Helps with styles much darker or brighter than the base model's own images. 0.05 is a mild value.",
        ge=0,
        le=1,
    )
    multires_discount: float = setting(
        0.0,
        "Multi-resolution noise",
        "Adds noise at coarser and coarser scales, each weighted by this once more, so that large areas of light and "
        "dark are learned. 0.3 is mild; 0 is plain noise.",
        ge=0,
        lt=1,
    )
    input_perturbation: float = setting(
        0.0,
        "Input perturbation",
        "How much more noise the model is shown than it has to predict, so that it copes with its own errors when it "
        "draws (Ning et al. 2023: 0.1). 0 switches it off.",
        Level.EXPERT,
        ge=0,
        le=1,
    )
