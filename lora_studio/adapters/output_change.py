"""What an adapter does to a module's output that is not a pair of factors: one class for each such kind.

Letters: B samples, N rows of weights (1, or B), C channels of the input, O of the output. Tensors that go through a
module have their channels in the last axis, also a convolution's: (B, …, C) and (B, …, O).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lora_studio.adapters.kinds import Kind


@dataclass(frozen=True, eq=False)
class Pass:
    """One pass through a module."""

    x: Tensor
    """Its input (B, …, C)."""
    bare: Tensor
    """Its own output (B, …, O), bias included."""
    bias: Tensor | None
    """(O,), None if it has none."""
    total: Tensor
    """Its output with what the adapters before have added."""
    weights: Tensor
    """(N,) how strong the change is, 1 as trained: for each sample, or one for all."""
    again: Callable[[Tensor], Tensor]
    """The module's own output for another input."""

    def product(self, x: Tensor | None = None) -> Tensor:
        """W x: the module's own output without its bias, for its input or another one."""
        output = self.bare if x is None else self.again(x)
        return output if self.bias is None else output - self.bias.to(output.dtype)

    def weighed(self, change: Tensor) -> Tensor:
        """``change`` (B, …) times the strength of each sample, in the format of ``total``."""
        weights = self.weights.to(change.dtype).reshape(-1, *(1 for _ in change.shape[1:]))
        return (weights * change).to(self.total.dtype)


class OutputChange(ABC):
    """What is done to the output of the module at a canonical path. Immutable; its tensors may have any format. Those
    of no dimension are not changed with the others: an ``alpha``, a switch.
    """

    kind: ClassVar[Kind]
    """Its roles are those of a file that hold this change."""
    changes_weight: ClassVar[bool] = True
    """Whether it is a change of the weight, so that it can be folded, merged and exported as a LoRA."""

    shares_batch: ClassVar[bool] = True
    """Whether samples with a weight of 0 may share a batch with others. If not, it is left out where all have 0."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of the module's weight: (O, C) or (O, C, kh, kw), with 0 for what it does not need to know. (O, 0) and (0, C)
        fit any kernel.
        """

    @abstractmethod
    def tensors(self) -> Mapping[str, Tensor]:
        """What a file holds of it, by role."""

    @classmethod
    @abstractmethod
    def read(cls, tensors: Mapping[str, Tensor]) -> OutputChange:
        """The inverse of ``tensors``.

        Raises:
            KeyError: a role is missing.
            ValueError: the shapes do not fit each other, or there is a role too many; the message is for people.
        """

    @abstractmethod
    def apply(self, given: Pass) -> Tensor:
        """``given.total`` with this change at its strength, (B, …, O) in the same format."""

    def strength(self, weights: Tensor) -> Tensor:
        """How strong it is at the weights that a user gives; at 1 as trained."""
        return weights

    def change(self, weight: Tensor) -> Tensor:
        """ΔW of the module's weight W (O, …) at strength 1, float32 in the shape of W. Only asked where
        ``changes_weight``.
        """
        raise NotImplementedError(f"{self.kind.title} is no change of the weight")

    @property
    def parameters(self) -> int:
        """Numbers that it holds."""
        return sum(tensor.numel() for tensor in self.tensors().values() if tensor.dim())

    @property
    def acts(self) -> bool:
        """Whether it changes anything."""
        return any(bool(tensor.any()) for tensor in self.tensors().values() if tensor.dim())

    def placed(self, device: torch.device, dtype: torch.dtype) -> OutputChange:
        """The same change, ready to compute there in that format."""
        return self.map(lambda tensor: tensor.to(device, dtype))

    def map(self, change: Callable[[Tensor], Tensor]) -> OutputChange:
        """With every tensor changed that has a dimension."""
        held = self.tensors().items()
        return type(self).read({role: change(tensor) if tensor.dim() else tensor for role, tensor in held})
