"""A LoHa's layer. It computes with the two factors of rank r² that the product has, and keeps W as it is."""

from __future__ import annotations

import math

from torch import Tensor, nn

from lora_studio.methods.increment_layer import IncrementLayer

PARTS = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


class LohaLayer(IncrementLayer):
    """ΔW = s (w1_a w1_b) ∘ (w2_a w2_b), with a (out, r) and b (r, in·kh·kw)."""

    def __init__(self, base_layer: nn.Linear | nn.Conv2d, rank: int, scale: float, dropout: float):
        super().__init__(base_layer, scale, dropout)
        self.rank, inputs = rank, self.into * math.prod(self.kernel)
        self.hada_w1_a, self.hada_w2_a = self.learned(self.out, rank), self.learned(self.out, rank)
        self.hada_w1_b, self.hada_w2_b = self.learned(rank, inputs), self.learned(rank, inputs)
        self.whole = whole(rank, inputs, self.out)

    def increment(self, x: Tensor) -> Tensor:
        if self.whole:
            return self.by(x, self.scale * (self.hada_w1_a @ self.hada_w1_b) * (self.hada_w2_a @ self.hada_w2_b))
        down = (self.hada_w1_b[:, None] * self.hada_w2_b[None]).flatten(0, 1)
        up = (self.scale * self.hada_w1_a[:, :, None] * self.hada_w2_a[:, None]).flatten(1)
        return self.mixed(self.by(x, down), up)


def whole(rank: int, inputs: int, outputs: int) -> bool:
    """Whether ΔW itself is smaller than two factors of rank r²."""
    return rank**2 * (inputs + outputs) > inputs * outputs
