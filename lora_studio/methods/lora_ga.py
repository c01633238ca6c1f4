"""LoRA-GA (Wang et al. 2024, *LoRA-GA: Low-Rank Adaptation with Gradient Approximation*): a LoRA whose first step goes
where that of full fine-tuning would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from lora_studio.language import tr
from lora_studio.methods.lora import Lora, factors_of
from lora_studio.methods.method import AdapterOptions, Directions, Layer
from lora_studio.methods.pissa import Pissa

if TYPE_CHECKING:
    import torch

    from lora_studio.adapters.adapter import Factors

STABLE = 16.0
"""γ of algorithm 1, as in the paper's experiments."""


class LoraGa(Pissa):
    """W − (alpha / r) B₀ A₀ + (alpha / r) B A, as a PiSSA; A₀ and B₀ are along the loss's gradient by W."""

    name, title = "lora-ga", "LoRA-GA"
    help = "LoRA-GA starts along the loss's gradients in a few batches"
    own_start = tr("LoRA-GA begins from the gradients of the base model, not from an adapter.")

    def start(
        self, layers: Mapping[str, Layer], options: AdapterOptions, source: torch.Generator
    ) -> Mapping[str, Factors] | None:
        """As a LoRA: the gradient is not known yet."""
        return Lora.start(self, layers, options, source)

    def looks_at(self, options: AdapterOptions) -> Literal["", "inputs", "gradients"]:
        return "gradients"

    def start_along(
        self, layers: Mapping[str, Layer], options: AdapterOptions, seen: Mapping[str, Directions]
    ) -> Mapping[str, Factors] | None:
        """Algorithm 1: with U S V the singular triples of W's gradient, A₀ is the first r rows of Vᵀ and B₀ columns
        r + 1 to 2 r of U, both times out^¼ / √γ. So the first step can reach the 2 r main directions. The paper's
        factor alpha / √r before them is that of ``rslora``.

        Where the gradient has fewer directions than that, the rest stays as in a LoRA.
        """
        for path, layer in layers.items():
            down, up = factors_of(layer.module)
            rank, scale = len(down), len(up) ** 0.25 / STABLE**0.5
            rows, columns = seen[path].right[:rank], seen[path].left[:, rank : 2 * rank]
            down[: len(rows)] = scale * rows.reshape(len(rows), *down.shape[1:])
            up[:, : columns.shape[1]] = scale * columns.reshape(*columns.shape, *up.shape[2:])
        return {path: Lora.read(self, layer, None) for path, layer in layers.items()}
