"""Rectified flow: straight lines from the data to the noise (Liu et al. 2022, *Flow Straight and Fast*), as Stable
Diffusion 3 trains them (Esser et al. 2024, *Scaling Rectified Flow Transformers for High-Resolution Image Synthesis*).
Symbols as in ``process``, with s = t / T in 0 … 1; those papers call it t.

x_t = (1−s) x₀ + s ε, so SNR(t) = ((1−s) / s)². The model predicts the line's direction, v = ε − x₀.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lora_studio.diffusion.process import Process, per_sample

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class RectifiedFlow(Process):
    """Timesteps are float32 in 0 … T.

    Args:
        schedule: the model's scheduler configuration; its ``shift`` moves timesteps towards the noise.
        logit_normal: train mostly at middling timesteps, as Stable Diffusion 3 does; else at all alike.
    """

    name, title, aliases = "flow", "Rectified flow", ("flow_prediction", "rectified_flow", "rf")
    samplers = {
        "ddim": "FlowMatchEulerDiscreteScheduler",  # its deterministic step along a straight line is Euler's
        "euler": "FlowMatchEulerDiscreteScheduler",
        "dpm++": "DPMSolverMultistepScheduler",
        "unipc": "UniPCMultistepScheduler",
    }

    def __init__(self, schedule: Mapping[str, Any], logit_normal: bool = True):
        super().__init__(schedule)
        self.logit_normal = logit_normal

    @classmethod
    def owns(cls, schedule: Mapping[str, Any]) -> bool:
        kind, predicts = schedule.get("_class_name", ""), schedule.get("prediction_type", "")
        return kind.startswith("FlowMatch") or predicts in (cls.name, *cls.aliases)

    @property
    def shift(self) -> float:
        """How much more of the time is spent near the noise, as larger pictures need; 1 is none."""
        return self.schedule.get("shift", self.schedule.get("flow_shift", 1.0))

    def draw(self, count: int, source: torch.Generator) -> Tensor:
        """Uniform in s (Liu et al. 2022, eq. 1), or the logistic function of a standard normal draw (Esser et al. 2024,
        §3.1, eq. 19 with location 0 and scale 1); then shifted.
        """
        import torch

        if self.logit_normal:
            return self._shifted(torch.randn(count, generator=source).sigmoid())
        return self._shifted(torch.rand(count, generator=source))

    def evenly(self, count: int) -> Tensor:
        import torch

        return self._shifted((torch.arange(count) + 0.5) / count)

    def ends(self) -> tuple[Tensor, Tensor]:
        import torch

        return torch.tensor(0.0), torch.tensor(float(self.timesteps))

    def log_snr(self, timesteps: Tensor) -> Tensor:
        return -2 * (timesteps / self.timesteps).logit()

    def at_log_snr(self, log_snr: Tensor) -> Tensor:
        """s = 1 / (1 + √SNR), whatever the shift."""
        return (self.timesteps * (-log_snr / 2).sigmoid()).float()

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        s = self._share(timesteps, x0)
        return (1 - s) * x0 + s * noise

    def target(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return noise - x0

    def x0(self, predicted: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        return noisy - self._share(timesteps, noisy) * predicted

    def weight(self, timesteps: Tensor, gamma: float) -> Tensor:
        """1 whatever ``gamma`` is: how often a timestep is drawn is its weight here (Esser et al. 2024, §3.1)."""
        return timesteps.new_ones(timesteps.shape)

    def x0_ratio(self, snr: Tensor) -> Tensor:
        """s², with s = 1 / (1 + √SNR): an error in v is an error in x₀ times 1 / s."""
        return (1 + snr.sqrt()) ** -2

    def share(self, timesteps: Tensor) -> Tensor:
        return timesteps / self.timesteps

    def configuration(self, scheduler: str) -> dict[str, Any]:
        """A shift that depends on the picture's size (Flux) is left out."""
        if scheduler.startswith("FlowMatch"):
            return {"num_train_timesteps": self.timesteps, "shift": self.shift}
        flow = {"use_flow_sigmas": True, "flow_shift": self.shift, "prediction_type": "flow_prediction"}
        return {"num_train_timesteps": self.timesteps, **flow}

    def first(self, scheduler: Any, noise: Tensor) -> Tensor:
        return noise

    def noised(self, scheduler: Any, x0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        if hasattr(scheduler, "scale_noise"):  # as diffusers' schedulers for flows alone call it
            return scheduler.scale_noise(x0, timestep, noise)
        return scheduler.add_noise(x0, noise, timestep)

    def model_input(self, scheduler: Any, latents: Tensor, timestep: Tensor) -> Tensor:
        return latents

    def _share(self, timesteps: Tensor, like: Tensor) -> Tensor:
        """s, shaped to broadcast over ``like``."""
        return per_sample(timesteps / self.timesteps, like)

    def _shifted(self, share: Tensor) -> Tensor:
        """t = T · α s / (1 + (α − 1) s) with the shift α (Esser et al. 2024, §5.3.2, eq. 23)."""
        return self.timesteps * self.shift * share / (1 + (self.shift - 1) * share)
