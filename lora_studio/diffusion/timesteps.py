"""Which timesteps a run trains at: within which part of the noise process, and which of them more often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lora_studio.diffusion.process import Process

UNIFORM, NOISE, DETAIL, LOGNORMAL = "uniform", "noise", "detail", "lognormal"
"""The values of the setting ``timestep_bias``."""


class Bias(NamedTuple):
    """One of them."""

    name: str
    title: str
    help: str


def biases() -> tuple[Bias, ...]:
    """All of them, for people."""
    return (
        Bias(UNIFORM, "Uniform", "uniform draws as the base model was trained, which for most models is all alike"),
        Bias(
            NOISE,
            "Towards noise",
            "towards noise takes the noisier of two draws: more of composition and colours is learned",
        ),
        Bias(DETAIL, "Towards detail", "towards detail takes the less noisy of two draws: more of lines and texture"),
        Bias(
            LOGNORMAL,
            "Log-normal",
            "log-normal draws the logarithm of the signal-to-noise ratio from a normal distribution: mean −6 and "
            "width 2 are the style-friendly sampler of Choi et al. 2024",
        ),
    )


class TimestepChoice(Protocol):
    """The settings that timesteps are drawn by; ``NoiseSettings`` is one."""

    @property
    def timestep_bias(self) -> str: ...
    @property
    def timestep_mean(self) -> float: ...
    @property
    def timestep_width(self) -> float: ...


class NoiseRange(NamedTuple):
    """Parts of the noise process, one for each of B samples."""

    low: Tensor
    """(B,) float64: where each begins; 0 is no noise, 1 nothing else."""
    high: Tensor
    """(B,) float64: where it ends; above ``low``."""


def draw(
    process: Process, choice: TimestepChoice, count: int, source: torch.Generator, within: NoiseRange | None
) -> Tensor:
    """(count,) random timesteps of ``process``, on the CPU.

    The noisier of two draws has the density 2 F(t) f(t) where the process itself draws with density f and distribution
    F: three quarters of them are above the process's own median.

    Args:
        within: what the timesteps keep to; None for the whole process.
    """
    if choice.timestep_bias == LOGNORMAL:
        return _lognormal(process, choice, count, source, within)
    drawn = process.draw(count, source)
    if choice.timestep_bias == NOISE:
        drawn = drawn.maximum(process.draw(count, source))
    elif choice.timestep_bias == DETAIL:
        drawn = drawn.minimum(process.draw(count, source))
    return process.within(drawn, within.low, within.high) if within else drawn


def _lognormal(
    process: Process, choice: TimestepChoice, count: int, source: torch.Generator, within: NoiseRange | None
) -> Tensor:
    """Timesteps whose log SNR is normally distributed (Choi et al. 2024, *Style-Friendly SNR Sampler for Style-Driven
    Generation*: mean −6, standard deviation 2), cut off at the ends of the range: Stable Diffusion's noise
    ends at −5.4 already, and its last timestep must not get all that lies beyond.
    """
    import torch

    ends = process.ends()
    first, last = (end.expand(count) for end in ends)
    if within:
        first, last = process.within(first, within.low, within.high), process.within(last, within.low, within.high)
    noisiest, clearest = (
        (process.log_snr(end).double() - choice.timestep_mean) / choice.timestep_width for end in (last, first)
    )
    drawn = _cut_normal(noisiest, clearest, torch.rand(count, generator=source, dtype=torch.float64))
    return process.at_log_snr(drawn * choice.timestep_width + choice.timestep_mean)


def _cut_normal(low: Tensor, high: Tensor, share: Tensor) -> Tensor:
    """The standard normal draws between ``low`` and ``high`` (B,) below which ``share`` (B,) of them lie."""
    import torch

    mirrored = low + high > 0  # the lower tail alone has its digits
    low, high = low.where(~mirrored, -high), high.where(~mirrored, -low)
    share = share.where(~mirrored, 1 - share)
    below, above = (torch.erfc(-z / math.sqrt(2)) / 2 for z in (low, high))  # torch's ndtr has no digits beyond −8
    drawn = torch.special.ndtri(below + share * (above - below))
    drawn = drawn.where(above > 0, high).clamp(low, high)  # beyond all digits it is the nearer end
    return drawn.where(~mirrored, -drawn)


POINTS = 100
"""Bars of ``density``."""


def density(choice: TimestepChoice, low: float, high: float, log_snr: Sequence[float] = ()) -> list[float]:
    """How often each of ``POINTS`` equal parts of the noise process is trained at, relative to uniform draws, for a
    process that itself draws uniformly. No torch.

    Args:
        low, high: the part of the process that is trained at.
        log_snr: at the timesteps, from no noise on; those of Stable Diffusion where none is given.
    """
    log_snr = log_snr or _of_stable_diffusion()

    def place(share: float) -> float:
        return min(max((share - low) / (high - low), 0.0), 1.0)

    def z(share: float) -> float:
        at = log_snr[min(int((low + place(share) * (high - low)) * len(log_snr)), len(log_snr) - 1)]
        return (at - choice.timestep_mean) / choice.timestep_width

    def mass(start: float, end: float) -> float:
        if choice.timestep_bias == LOGNORMAL:
            return _normal_between(z(end), z(start))
        first, last = place(start), place(end)
        return {NOISE: last**2 - first**2, DETAIL: (2 - first - last) * (last - first)}.get(
            choice.timestep_bias, last - first
        )

    masses = [mass(i / POINTS, (i + 1) / POINTS) for i in range(POINTS)]
    return [POINTS * one / (sum(masses) or 1) for one in masses]


def _normal_between(low: float, high: float) -> float:
    """The share of a standard normal distribution between ``low`` and ``high``, from the tail that has the digits."""
    below, above = (-high, -low) if low + high > 0 else (low, high)
    return 0.5 * (math.erfc(-above / math.sqrt(2)) - math.erfc(-below / math.sqrt(2)))


def _of_stable_diffusion() -> list[float]:
    """log SNR of its 1,000 timesteps: √β evenly from √0.00085 to √0.012 (Rombach et al. 2022)."""
    first, last = math.sqrt(0.00085), math.sqrt(0.012)
    kept, found = 1.0, []
    for step in range(1000):
        kept *= 1 - (first + (last - first) * step / 999) ** 2
        found.append(math.log(kept / (1 - kept)))
    return found
