"""Gaussian diffusion in T steps (Ho et al. 2020, *Denoising Diffusion Probabilistic Models*): the model predicts the
noise or the velocity. Symbols as in ``process``.

x_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε (eq. 4), so SNR(t) = ᾱ_t / (1−ᾱ_t). A schedule with ``rescale_betas_zero_snr`` ends in pure
noise, ᾱ = 0 (Lin et al. 2024, *Common Diffusion Noise Schedules and Sample Steps are Flawed*, §3.1).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from lora_studio.diffusion.process import Process, per_sample
from lora_studio.diffusion.samplers import DECLARED
from lora_studio.errors import SettingsError
from lora_studio.language import declared, tr

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class GaussianDiffusion(Process):
    """What both predictions share. Timesteps are int64 in 0 … T−1."""

    prediction_type: ClassVar[str]
    """As diffusers' configurations name what is predicted."""
    zero_snr_spacing: ClassVar[str] = "trailing"
    """Where samplers begin in a schedule that ends in pure noise: ``trailing`` is its very end (Lin et al. 2024, §3.3),
    whatever a configuration for other schedules says.
    """

    def __init__(self, schedule: Mapping[str, Any]):
        super().__init__(schedule)
        self._alpha_bar: Tensor | None = None

    @property
    def zero_snr(self) -> bool:
        return bool(self.schedule.get("rescale_betas_zero_snr"))

    @classmethod
    def owns(cls, schedule: Mapping[str, Any]) -> bool:
        # flows' configurations name no prediction, and EDM's noise has no steps
        other = schedule.get("_class_name", "").startswith(("FlowMatch", "EDM"))
        return not other and schedule.get("prediction_type", "epsilon") == cls.prediction_type

    def alpha_bar(self, timesteps: Tensor) -> Tensor:
        """ᾱ at ``timesteps`` (B,): (B,) float32, there."""
        import diffusers
        import torch

        if self._alpha_bar is None:
            made: Any = diffusers.DDIMScheduler.from_config(self.configuration("DDIMScheduler"))
            self._alpha_bar = made.alphas_cumprod.to(torch.float32)
        self._alpha_bar = self._alpha_bar.to(timesteps.device)  # stays there: a recorded step must not copy
        return self._alpha_bar[timesteps]

    def draw(self, count: int, source: torch.Generator) -> Tensor:
        import torch

        return torch.randint(self.timesteps, (count,), generator=source)

    def evenly(self, count: int) -> Tensor:
        import torch

        return torch.tensor([round((i + 0.5) / count * self.timesteps) for i in range(count)])

    def within(self, timesteps: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Each of a part's timesteps is as likely as the others, as far as their number divides T."""
        first, end = (self.timesteps * low).round().long(), (self.timesteps * high).round().long()
        return (first + timesteps * (end - first) // self.timesteps).clamp(max=self.timesteps - 1)

    def ends(self) -> tuple[Tensor, Tensor]:
        import torch

        return torch.tensor(0), torch.tensor(self.timesteps - 1)

    def log_snr(self, timesteps: Tensor) -> Tensor:
        return self.alpha_bar(timesteps).logit()

    def at_log_snr(self, log_snr: Tensor) -> Tensor:
        import torch

        falling = self.log_snr(torch.arange(self.timesteps)).double()
        between = -(falling[1:] + falling[:-1]) / 2  # where the next timestep becomes the nearer one
        return torch.searchsorted(between, -log_snr.double())

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        signal, rest = self._scales(timesteps, x0)
        return signal * x0 + rest * noise

    def weight(self, timesteps: Tensor, gamma: float) -> Tensor:
        alpha_bar = self.alpha_bar(timesteps)
        snr = alpha_bar / (1 - alpha_bar)
        return self.min_snr(snr, gamma) if gamma else snr.new_ones(snr.shape)

    def share(self, timesteps: Tensor) -> Tensor:
        return timesteps / self.timesteps

    @abstractmethod
    def min_snr(self, snr: Tensor, gamma: float) -> Tensor:
        """min(SNR, γ), converted from errors in x₀ to errors in what is predicted."""

    def configuration(self, scheduler: str) -> dict[str, Any]:
        """Clipping to [−1, 1], which some published configurations leave on, is for pixels and would crush latents."""
        spacing = {"timestep_spacing": self.zero_snr_spacing} if self.zero_snr else {}
        return {**self.schedule, **spacing, "prediction_type": self.prediction_type, "clip_sample": False}

    def options(self, sampler: str) -> Mapping[str, Any]:
        return DECLARED[sampler].options

    def first(self, scheduler: Any, noise: Tensor) -> Tensor:
        return noise * scheduler.init_noise_sigma

    def model_input(self, scheduler: Any, latents: Tensor, timestep: Tensor) -> Tensor:
        return scheduler.scale_model_input(latents, timestep)

    def estimate(self, predicted: Tensor, noisy: Tensor, timestep: Tensor) -> Tensor:
        """At the nearest of the T timesteps, since some samplers take steps between them."""
        return super().estimate(predicted, noisy, self._nearest(timestep))

    def _nearest(self, timestep: Tensor) -> Tensor:
        return timestep.round().long().clamp(0, self.timesteps - 1)

    def _scales(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ_t and √(1−ᾱ_t), shaped to broadcast over ``like``."""
        alpha_bar = per_sample(self.alpha_bar(timesteps), like)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


class Epsilon(GaussianDiffusion):
    """The model predicts the noise itself (Ho et al. 2020, §3.2)."""

    name, title, aliases, prediction_type = "epsilon", "Noise (ε)", ("eps",), "epsilon"
    zero_snr_spacing = "leading"
    """Before the end: in pure noise, its noise tells nothing about the signal, and a sampler would divide by 0."""

    def scheduler(self, sampler: str, steps: int, device: torch.device | str) -> Any:
        if self.zero_snr and DECLARED[sampler].from_the_end:
            what = tr(
                "{sampler} begins in pure noise, where a model that predicts noise tells nothing.",
                sampler=declared(DECLARED[sampler].title),
            )
            raise SettingsError(what, where="sampler", do=tr("Choose another sampler, or set zero_snr to off."))
        return super().scheduler(sampler, steps, device)

    def target(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return noise

    def x0(self, predicted: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Infinite where ᾱ is 0: from pure noise alone, its noise tells nothing about the signal."""
        signal, rest = self._scales(timesteps, noisy)
        return (noisy - rest * predicted) / signal

    def x0_ratio(self, snr: Tensor) -> Tensor:
        return 1 / snr

    def min_snr(self, snr: Tensor, gamma: float) -> Tensor:
        """min(SNR, γ) / SNR, and 1 where SNR is 0: an error in ε is an error in x₀ times √SNR."""
        positive = snr.clamp(min=1e-30)
        return positive.clamp(max=gamma) / positive


class Velocity(GaussianDiffusion):
    """The model predicts v = √ᾱ ε − √(1−ᾱ) x₀ (Salimans & Ho 2022, *Progressive Distillation for Fast Sampling of
    Diffusion Models*, §4 and appendix D).
    """

    name, title, aliases, prediction_type = "v", "Velocity (v)", ("v_prediction", "velocity"), "v_prediction"

    @property
    def guidance_rescale(self) -> float:
        """0.7 where the noise ends without any signal, which guidance overexposes (Lin et al. 2024, §3.4)."""
        return 0.7 if self.zero_snr else 0.0

    def target(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        signal, rest = self._scales(timesteps, x0)
        return signal * noise - rest * x0

    def x0(self, predicted: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        signal, rest = self._scales(timesteps, noisy)
        return signal * noisy - rest * predicted

    def x0_ratio(self, snr: Tensor) -> Tensor:
        return 1 / (snr + 1)

    def min_snr(self, snr: Tensor, gamma: float) -> Tensor:
        """min(SNR, γ) / (SNR + 1): an error in v is an error in x₀ times √(SNR + 1)."""
        return snr.clamp(max=gamma) / (snr + 1)
