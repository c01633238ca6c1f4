"""(IA)³: a learned factor for each output, or each input, of a layer (Liu et al. 2022, section 3.3).

A file holds l as its distance from 1 (``weight``), and on which side it multiplies (``on_input``), as LyCORIS writes
and A1111 reads it: W' = (1 + l) ⊙ W by rows, or by columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_studio.adapters.kinds import IA3
from lora_studio.adapters.output_change import OutputChange, Pass
from lora_studio.language import tr


@dataclass(frozen=True, eq=False)
class Ia3Change(OutputChange):
    """The factors of one module."""

    kind = IA3

    vector: Tensor
    """l (O,), or (C,) on the input, as its distance from 1."""
    on_input: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return (0, len(self.vector)) if self.on_input else (len(self.vector), 0)

    def tensors(self) -> Mapping[str, Tensor]:
        return {"weight": self.vector, "on_input": torch.tensor(int(self.on_input))}

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor]) -> Ia3Change:
        vector, on_input = tensors["weight"], tensors["on_input"]
        if vector.numel() != max(vector.shape, default=0) or on_input.numel() != 1:
            raise ValueError(tr("its weight has the shape {shape}", shape=str(tuple(vector.shape))))
        return cls(vector.flatten(), bool(on_input.item()))

    def apply(self, given: Pass) -> Tensor:
        vector = self.vector.to(given.bare.dtype)
        product = given.product(given.x * vector) if self.on_input else given.product() * vector
        return given.total + given.weighed(product)

    def change(self, weight: Tensor) -> Tensor:
        vector = self.vector.to(weight.device, torch.float32)
        return weight.float() * vector.reshape(*((1, -1) if self.on_input else (-1, 1)), *(1 for _ in weight.shape[2:]))
