"""A layer with learned rows behind its output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lora_studio.methods.own_layer import OwnLayer


class PrefixLayer(OwnLayer):
    """The projection of a text to keys or values, (B, T, C) -> (B, T + n, O): the last n rows are the same for every
    sample.

    Args:
        count: n.
        role: as ``adapters.prefix.Prefix`` has it.
    """

    def __init__(self, base_layer: nn.Linear, count: int, role: str):
        super().__init__(base_layer)
        self.role = role
        self.rows = nn.Parameter(torch.zeros(count, base_layer.out_features, device=base_layer.weight.device))

    def changed(self, x: Tensor) -> Tensor:
        output = self.base_layer(x)
        return torch.cat([output, self.rows.to(output.dtype).expand(len(output), -1, -1)], dim=1)
