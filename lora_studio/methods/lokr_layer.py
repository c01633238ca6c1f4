"""A LoKr's layer. (w1 ⊗ w2) x is computed as two small products, so that ΔW is never multiplied out."""

from __future__ import annotations

from torch import Tensor, nn

from lora_studio.methods.increment_layer import IncrementLayer


class LokrLayer(IncrementLayer):
    """ΔW = s w1 ⊗ w2 with w1 (l, m) and w2 (k, n·kh·kw), whole, or the product of w2_a (k, r) and w2_b (r, n·kh·kw).

    Args:
        sides: (l, k) of the outputs and (m, n) of the inputs.
        rank: r, or 0 to keep w2 whole.
    """

    def __init__(
        self,
        base_layer: nn.Linear | nn.Conv2d,
        sides: tuple[tuple[int, int], tuple[int, int]],
        rank: int,
        scale: float,
        dropout: float,
    ):
        super().__init__(base_layer, scale, dropout)
        (l, k), (m, n) = self.sides = sides
        self.rank = rank
        self.lokr_w1 = self.learned(l, m)
        if rank:
            self.lokr_w2_a, self.lokr_w2_b = self.learned(k, rank), self.learned(rank, n * self._area())
        else:
            self.lokr_w2 = self.learned(k, n, *self.kernel)

    def _area(self) -> int:
        return self.kernel[0] * self.kernel[1] if self.kernel else 1

    @property
    def parts(self) -> tuple[str, ...]:
        """The roles of its parameters."""
        return ("lokr_w1", "lokr_w2_a", "lokr_w2_b") if self.rank else ("lokr_w1", "lokr_w2")

    def increment(self, x: Tensor) -> Tensor:
        (l, _), (m, n) = self.sides
        first = self.lokr_w2_b if self.rank else self.lokr_w2.flatten(1)
        if not self.kernel:
            made = self.mixed(self.by(x.unflatten(-1, (m, n)), first).transpose(-1, -2), self.scale * self.lokr_w1)
            made = made.transpose(-1, -2)  # (…, l, k or r)
            return (self.mixed(made, self.lokr_w2_a) if self.rank else made).flatten(-2)
        made = self.by(x.unflatten(1, (m, n)).flatten(0, 1), first).unflatten(0, (-1, m))
        made = (self.scale * self.lokr_w1 @ made.flatten(2)).unflatten(2, made.shape[2:])  # (B, l, k or r, H, W)
        made = self.mixed(made.flatten(0, 1), self.lokr_w2_a).unflatten(0, (-1, l)) if self.rank else made
        return made.flatten(1, 2)
