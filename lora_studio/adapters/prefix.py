"""Prefixes (Li & Liang 2021, *Prefix-Tuning: Optimizing Continuous Prompts for Generation*): learned keys and values
that attention to a text reads behind the text's own.

The softmax runs over both, so that rows take a share of the attention whatever their values are. Without an adapter its
rows are therefore left out, and samples with it and without it do not share a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lora_studio.adapters.kinds import PREFIX
from lora_studio.adapters.output_change import OutputChange, Pass
from lora_studio.language import tr

KEYS, VALUES = "prefix_keys", "prefix_values"


@dataclass(frozen=True, eq=False)
class Prefix(OutputChange):
    """Rows behind the output (B, T, O) of a cross-attention's ``to_k``, or of its ``to_v``.

    Args:
        rows: (n, O).
        role: ``KEYS`` or ``VALUES``. The adapter's weight multiplies values alone: how much attention the rows get does
            not depend on it.
    """

    rows: Tensor
    role: str

    kind: ClassVar = PREFIX
    changes_weight: ClassVar[bool] = False
    shares_batch: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.rows.dim() != 2:
            raise ValueError(tr("its rows have the shape {shape}", shape=str(tuple(self.rows.shape))))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows.shape[1], 0)

    def tensors(self) -> Mapping[str, Tensor]:
        return {self.role: self.rows}

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor]) -> Prefix:
        held = {role: tensor for role, tensor in tensors.items() if role in (KEYS, VALUES)}
        if len(held) != 1:
            raise ValueError(tr("a layer has keys or values, not both"))
        [(role, rows)] = held.items()
        return cls(rows, role)

    def apply(self, given: Pass) -> Tensor:
        rows = self.rows.expand(len(given.total), -1, -1)
        added = given.weighed(rows) if self.role == VALUES else rows.to(given.total.dtype)
        return torch.cat([given.total, added], dim=1)
