"""An (IA)³'s layer: each of its outputs, or its inputs, has a learned factor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lora_studio.methods.increment_layer import dimensions
from lora_studio.methods.own_layer import OwnLayer


class Ia3Layer(OwnLayer):
    """y = (1 + l) ⊙ (W x) + b, or W ((1 + l) ⊙ x) + b. Only l is held, lest small factors be rounded away beside 1."""

    def __init__(self, base_layer: nn.Linear | nn.Conv2d, on_input: bool, dropout: float):
        super().__init__(base_layer)
        outputs, inputs, kernel = dimensions(base_layer)
        self.on_input, self.is_conv = on_input, bool(kernel)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        device = base_layer.weight.device
        self.ia3_l = nn.Parameter(torch.empty(inputs if on_input else outputs, device=device))

    def changed(self, x: Tensor) -> Tensor:
        if self.on_input:
            return self.base_layer(x + self._scaled(x))
        y, bias = self.base_layer(x), self.base_layer.bias
        return y + self._scaled(y if bias is None else y - self._along(bias).to(y.dtype))

    def _scaled(self, values: Tensor) -> Tensor:
        return values * self._along(self.dropout(self.ia3_l)).to(values.dtype)

    def _along(self, vector: Tensor) -> Tensor:
        return vector[:, None, None] if self.is_conv else vector
