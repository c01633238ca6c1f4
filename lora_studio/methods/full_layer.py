"""A layer whose weight itself trains."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_studio.methods.own_layer import OwnLayer


class FullLayer(OwnLayer):
    """A linear layer or convolution with a weight of its own in place of the base layer's, whose bias it keeps.

    Args:
        base_layer: not packed.
    """

    def __init__(self, base_layer: nn.Linear | nn.Conv2d):
        super().__init__(base_layer)
        self.own_weight = nn.Parameter(torch.empty_like(base_layer.weight, dtype=torch.float32))
        """W', of the shape of W; float32, or the format that the model computes in."""

    def changed(self, x: Tensor) -> Tensor:
        base: Any = self.base_layer
        if isinstance(base, nn.Linear):
            return F.linear(x, self.own_weight, base.bias)
        return F.conv2d(x, self.own_weight, base.bias, base.stride, base.padding, base.dilation, base.groups)
