"""A layer that adds a learned product of its input to the base layer's answer: y = W x + b + ΔW x."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_studio.methods.own_layer import OwnLayer


class IncrementLayer(OwnLayer):
    """Around a linear layer or a convolution, packed or not.

    Args:
        scale: of ΔW.
        dropout: share of the input that ΔW does not see.
    """

    def __init__(self, base_layer: nn.Linear | nn.Conv2d, scale: float, dropout: float):
        super().__init__(base_layer)
        self.scale = scale
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.out, self.into, self.kernel = dimensions(base_layer)

    def learned(self, *shape: int) -> nn.Parameter:
        """An uninitialized parameter, float32 on the device of the base layer."""
        return nn.Parameter(torch.empty(shape, device=self.base_layer.weight.device))

    def changed(self, x: Tensor) -> Tensor:
        y = self.base_layer(x)
        wide = next(parameter.dtype for parameter in self.parameters() if parameter.requires_grad)
        return y + self.increment(self.dropout(x.to(wide))).to(y.dtype)

    @abstractmethod
    def increment(self, x: Tensor) -> Tensor:
        """ΔW x."""

    def by(self, x: Tensor, weight: Tensor) -> Tensor:
        """x through a layer like the base layer whose weight is ``weight`` (O, C·kh·kw), without a bias."""
        if not self.kernel:
            return F.linear(x, weight)
        base: Any = self.base_layer
        shaped = weight.reshape(len(weight), -1, *self.kernel)
        return F.conv2d(x, shaped, None, base.stride, base.padding, base.dilation)

    def mixed(self, x: Tensor, weight: Tensor) -> Tensor:
        """The channels of x multiplied by ``weight`` (O, C), whatever the base layer's kernel is."""
        return F.conv2d(x, weight[:, :, None, None]) if self.kernel else F.linear(x, weight)


def dimensions(layer: nn.Linear | nn.Conv2d) -> tuple[int, int, tuple[int, ...]]:
    """Outputs, inputs, and the kernel, () of a linear layer."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features, ()
    return layer.out_channels, layer.in_channels // layer.groups, tuple(layer.kernel_size)
