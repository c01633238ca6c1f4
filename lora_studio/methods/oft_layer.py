"""An OFT's layer: it rotates the base layer's answers, so that the weights may be packed and are never multiplied."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lora_studio.adapters.oft import rotation
from lora_studio.methods.increment_layer import dimensions
from lora_studio.methods.own_layer import OwnLayer


class OftLayer(OwnLayer):
    """y = R (W x) + b, R being block-diagonal with blocks (I + Q)(I − Q)⁻¹ of n outputs each.

    Args:
        size: n, which divides the outputs.
        dropout: share of the blocks that do not rotate in a step.
    """

    def __init__(self, base_layer: nn.Linear | nn.Conv2d, size: int, dropout: float):
        super().__init__(base_layer)
        outputs, _, kernel = dimensions(base_layer)
        self.size, self.count, self.is_conv, self.share = size, outputs // size, bool(kernel), dropout
        device: torch.device = base_layer.weight.device
        self.oft_skew = nn.Parameter(torch.empty(self.count, size * (size - 1) // 2, device=device))
        """The entries of each Q above its diagonal, row by row."""
        self.register_buffer("places", torch.triu_indices(size, size, 1, device=device), persistent=False)

    def blocks(self) -> Tensor:
        """B (K, n, n), of which Q is B − Bᵀ: the entries above the diagonal, 0 elsewhere."""
        made = self.oft_skew.new_zeros(self.count, self.size, self.size)
        rows, columns = self.get_buffer("places")
        return made.index_put((torch.arange(self.count, device=made.device)[:, None], rows, columns), self.oft_skew)

    def changed(self, x: Tensor) -> Tensor:
        y, bias = self.base_layer(x), self.base_layer.bias
        turn = rotation(self.blocks().float()) - torch.eye(self.size, device=y.device)
        if self.share and self.training:
            turn = turn * (torch.rand(self.count, 1, 1, device=y.device) >= self.share)
        parts = y if bias is None else y - self._along(bias).to(y.dtype)
        parts = parts.unflatten(1 if self.is_conv else -1, (self.count, self.size))
        change = torch.einsum("bkn...,knm->bkm..." if self.is_conv else "...kn,knm->...km", parts, turn.to(y.dtype))
        return y + (change.flatten(1, 2) if self.is_conv else change.flatten(-2))

    def _along(self, bias: Tensor) -> Tensor:
        return bias[:, None, None] if self.is_conv else bias
