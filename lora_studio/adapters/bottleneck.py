"""An adapter layer behind a module: a bottleneck with a skip connection (Houlsby et al. 2019, section 2.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from lora_studio.adapters.kinds import BOTTLENECK
from lora_studio.adapters.output_change import OutputChange, Pass
from lora_studio.language import tr


@dataclass(frozen=True, eq=False)
class Bottleneck(OutputChange):
    """y + U GELU(D y + d) + u of the module's output y. No change of the weight: it bends."""

    kind = BOTTLENECK
    changes_weight = False

    down: Tensor
    """D (r, O)."""
    down_bias: Tensor
    """d (r,)."""
    up: Tensor
    """U (O, r)."""
    up_bias: Tensor
    """u (O,)."""

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.up), 0

    def tensors(self) -> Mapping[str, Tensor]:
        return {
            "bottleneck_down": self.down,
            "bottleneck_down_bias": self.down_bias,
            "bottleneck_up": self.up,
            "bottleneck_up_bias": self.up_bias,
        }

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor]) -> Bottleneck:
        down, up = tensors["bottleneck_down"], tensors["bottleneck_up"]
        down_bias, up_bias = tensors["bottleneck_down_bias"], tensors["bottleneck_up_bias"]
        if (
            down.dim() != 2
            or up.shape != down.T.shape
            or down_bias.shape != up.shape[1:]
            or up_bias.shape != up.shape[:1]
        ):
            raise ValueError(
                tr("the layers' shapes are {down} and {up}", down=str(tuple(down.shape)), up=str(tuple(up.shape)))
            )
        return cls(down, down_bias, up, up_bias)

    def apply(self, given: Pass) -> Tensor:
        down, down_bias, up, up_bias = (tensor.to(given.total) for tensor in self.tensors().values())
        return given.total + given.weighed(added(given.total, down, down_bias, up, up_bias))


def added(y: Tensor, down: Tensor, down_bias: Tensor, up: Tensor, up_bias: Tensor) -> Tensor:
    """U GELU(D y + d) + u, (…, O) of y (…, O)."""
    return F.linear(F.gelu(F.linear(y, down, down_bias)), up, up_bias)
