"""An adapter layer under training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lora_studio.adapters.bottleneck import added
from lora_studio.methods.own_layer import OwnLayer


class BottleneckLayer(OwnLayer):
    """``adapters.bottleneck.Bottleneck`` of ``rank`` behind a linear layer; its parameters are set by the method."""

    def __init__(self, base_layer: nn.Linear, rank: int):
        super().__init__(base_layer)
        width, device = base_layer.out_features, base_layer.weight.device
        self.down = nn.Parameter(torch.empty(rank, width, device=device))
        self.down_bias = nn.Parameter(torch.empty(rank, device=device))
        self.up = nn.Parameter(torch.empty(width, rank, device=device))
        self.up_bias = nn.Parameter(torch.empty(width, device=device))

    def changed(self, x: Tensor) -> Tensor:
        y = self.base_layer(x)
        return y + added(y, self.down, self.down_bias, self.up, self.up_bias)
