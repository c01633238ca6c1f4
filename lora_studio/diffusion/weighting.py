"""How much the errors at each level of noise count. Weights are stated for one quantity, and ``Process.x0_ratio``
converts them to errors of what the model predicts. Symbols as in ``process``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lora_studio.diffusion.process import Process

if TYPE_CHECKING:
    from torch import Tensor

LEAST_SNR, MOST_SNR = 1e-3, 1e6
"""Beyond these the weights below no longer change. Stable Diffusion's SNR goes from 1,175 down to 0.0047; a schedule
that ends in pure noise would have infinite weights there.
"""
DEBIASED_SNR = 1e3
"""The same for debiased weights, as sd-scripts limits them."""


class WeightChoice(Protocol):
    """The settings that weights are made by; ``LossSettings`` is one."""

    @property
    def weighting(self) -> str: ...
    @property
    def min_snr_gamma(self) -> float: ...
    @property
    def p2_k(self) -> float: ...
    @property
    def p2_gamma(self) -> float: ...


@dataclass(frozen=True)
class Weighting:
    """One value of the setting ``weighting``."""

    name: str
    title: str
    help: str
    weight: Callable[[Process, Tensor, WeightChoice], Tensor | None]
    """(process, timesteps (B,), settings) -> (B,) finite weights of the squared errors; None where all are 1."""


def weight(process: Process, timesteps: Tensor, choice: WeightChoice) -> Tensor | None:
    """(B,) finite weights of the squared errors of the prediction at ``timesteps``; None where all are 1."""
    return WEIGHTINGS[choice.weighting].weight(process, timesteps, choice)


def _min_snr(process: Process, timesteps: Tensor, choice: WeightChoice) -> Tensor | None:
    return process.weight(timesteps, choice.min_snr_gamma) if choice.min_snr_gamma else None


def _debiased(process: Process, timesteps: Tensor, choice: WeightChoice) -> Tensor:
    """1 / √SNR of the errors in ε (Yu et al. 2024, *Unmasking Bias in Diffusion Model Training*). For v that is
    √SNR / (SNR + 1); sd-scripts takes 1 / (SNR + 1) there, which is the weighting ``x0``.
    """
    snr = _snr(process, timesteps).clamp(max=DEBIASED_SNR)
    return snr.sqrt() * process.x0_ratio(snr)


def _p2(process: Process, timesteps: Tensor, choice: WeightChoice) -> Tensor:
    """1 / (k + SNR)^γ of the errors in ε (Choi et al. 2022, *Perception Prioritized Training of Diffusion Models*)."""
    snr = _snr(process, timesteps)
    return snr * (choice.p2_k + snr) ** -choice.p2_gamma * process.x0_ratio(snr)


def _x0(process: Process, timesteps: Tensor, choice: WeightChoice) -> Tensor:
    """1 of the errors in x₀ (Chen et al. 2025, *ConsisLoRA: Enhancing Content and Style Consistency for
    LoRA-based Style Transfer*)."""
    return process.x0_ratio(_snr(process, timesteps))


def _snr(process: Process, timesteps: Tensor) -> Tensor:
    return process.log_snr(timesteps).exp().clamp(LEAST_SNR, MOST_SNR)


_ROWS = (
    Weighting("min-snr", "Min-SNR", "min-SNR limits the weight of timesteps with little noise", _min_snr),
    Weighting(
        "debiased", "Debiased", "debiased gives more weight to noisy timesteps, by 1 / √SNR (Yu et al. 2024)", _debiased
    ),
    Weighting("p2", "P2", "P2 gives less weight to timesteps with little noise (Choi et al. 2022)", _p2),
    Weighting(
        "x0",
        "Clean picture (x₀)",
        "x₀ counts the errors of the clean picture, so noisy timesteps most (ConsisLoRA)",
        _x0,
    ),
)
WEIGHTINGS = {row.name: row for row in _ROWS}
"""Name -> row, in the order in which they are offered."""
