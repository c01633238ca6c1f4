"""Velocity in continuous time, as CosXL was trained: the noise is given by its deviation σ, not by a step (Karras et
al. 2022, *Elucidating the Design Space of Diffusion-Based Generative Models*, §5 and table 1, with σ_data = 1).

The denoiser is given x_t = (x₀ + σ ε) / √(1 + σ²) and t = ¼ ln σ, so SNR(t) = 1 / σ² and ᾱ_t = 1 / (1 + σ²). Its answer
is then v = (ε − σ x₀) / √(1 + σ²), that of ``gaussian.Velocity`` at this ᾱ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lora_studio.diffusion.gaussian import Velocity
from lora_studio.diffusion.process import unless_whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CLASS = "EDMEulerScheduler"
"""diffusers' class in the configuration of such a model."""
LARGEST = 1e4
"""The largest σ that a model is believed to have been trained with: that of Stable Video Diffusion is 700."""


class ContinuousVelocity(Velocity):
    """Timesteps are float32 ¼ ln σ."""

    name, title, aliases = "edm", "Velocity in continuous time (EDM)", ()
    written = "v"
    samplers = {"euler": "EDMEulerScheduler", "dpm++": "EDMDPMSolverMultistepScheduler"}

    @property
    def zero_snr(self) -> bool:
        return False

    @property
    def sigmas(self) -> tuple[float, float]:
        """The smallest and the largest σ; those of CosXL where the configuration does not say."""
        return self.schedule.get("sigma_min", 0.002), self.schedule.get("sigma_max", 120.0)

    @classmethod
    def owns(cls, schedule: Mapping[str, Any]) -> bool:
        kind, predicts = schedule.get("_class_name", ""), schedule.get("prediction_type")
        return kind.startswith("EDM") and predicts == cls.prediction_type and schedule.get("sigma_data", 0.5) == 1

    def alpha_bar(self, timesteps: Tensor) -> Tensor:
        """ᾱ at ``timesteps`` (B,): (B,) float32, there."""
        return (-8 * timesteps).sigmoid()  # 1 / (1 + σ²) with σ = exp(4 t)

    def draw(self, count: int, source: torch.Generator) -> Tensor:
        """Uniform in u of the cosine schedule ᾱ = cos²(π u / 2) (Nichol & Dhariwal 2021, *Improved Denoising Diffusion
        Probabilistic Models*, eq. 17 with s = 0), between the two ends of σ.
        """
        import torch

        return self._at(torch.rand(count, generator=source))

    def evenly(self, count: int) -> Tensor:
        import torch

        return self._at((torch.arange(count) + 0.5) / count)

    def ends(self) -> tuple[Tensor, Tensor]:
        import torch

        first, last = self._at(torch.tensor([0.0, 1.0]))
        return first, last

    def log_snr(self, timesteps: Tensor) -> Tensor:
        """−2 ln σ."""
        return -8 * timesteps

    def at_log_snr(self, log_snr: Tensor) -> Tensor:
        """Between the ends of σ."""
        first, last = self.ends()
        return (-log_snr / 8).float().clamp(first, last)

    def configuration(self, scheduler: str) -> dict[str, Any]:
        smallest, largest = self.sigmas
        ends = {"sigma_min": smallest, "sigma_max": largest, "sigma_data": 1.0}
        spacing = self.schedule.get("sigma_schedule", "exponential")
        return {**ends, "sigma_schedule": spacing, "prediction_type": self.prediction_type}

    def within(self, timesteps: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Parts are measured by u, as ``draw`` spreads it."""
        moved = self._at(low + self.share(timesteps.double()) * (high - low))
        return unless_whole(timesteps, moved, low, high)

    def share(self, timesteps: Tensor) -> Tensor:
        """u."""
        first, last = (math.atan(sigma) for sigma in self.sigmas)
        return ((4 * timesteps).exp().atan() - first) / (last - first)

    def _nearest(self, timestep: Tensor) -> Tensor:
        return timestep  # every number is one

    def _at(self, share: Tensor) -> Tensor:
        """t where ``share`` (B,) in 0 … 1 of the cosine schedule has passed: σ = tan(π u / 2)."""
        first, last = (math.atan(sigma) for sigma in self.sigmas)
        return 0.25 * (first + (last - first) * share).tan().log()
