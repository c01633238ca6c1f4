"""Many small parameters end to end in one buffer, and their gradients in another.

An adapter has hundreds of small tensors: an optimizer that visits them one by one spends its time on launching kernels.
On one buffer a step takes a few kernels, gradients are clipped and zeroed in one each, and processes exchange them in
one all-reduce.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

_ALIGNED = 32
"""Every parameter begins at a multiple of that many elements, which vector units need; the gaps stay zero."""


class _Copies(NamedTuple):
    """What the model computes with and what autograd adds to, in a smaller format than the optimizer's."""

    values: Tensor
    """(N,)"""
    gradients: Tensor
    """(N,)"""


class FlatParameters:
    """Moves ``groups`` of float32 parameters of one device into one buffer. Each keeps its shape and value, but is a
    view of the buffer from then on, and its gradient one of another buffer.

    Gradients exist from the start, are added to in place, and must be zeroed in place.

    Args:
        copy_dtype: a smaller format for the model to compute in (Micikevicius et al. 2018, §3.1). Its parameters then
            hold copies of the buffer in that format, and their gradients come in it too: call ``accumulate_gradients``
            after each backward pass, ``sync_copies`` after each change of the buffer.
    """

    def __init__(self, groups: Sequence[Sequence[nn.Parameter]], copy_dtype: torch.dtype | None = None):
        sizes = [[-(-parameter.numel() // _ALIGNED) * _ALIGNED for parameter in group] for group in groups]
        total, device = sum(map(sum, sizes)), groups[0][0].device
        self.values = torch.zeros(total, device=device)
        """(N,) float32: all parameters."""
        self.exchanged = torch.zeros(total + _ALIGNED, device=device)
        """(N + 32,) float32: what processes exchange in one all-reduce, the gradients and the loss."""
        self.gradients = self.exchanged[:total]
        """(N,) float32: of all parameters."""
        self.loss = self.exchanged[total]
        """() float32: of the batches that the gradients come from."""
        self.groups: list[nn.Parameter] = []
        """One 1-D parameter for each group, a view of the buffer."""
        self.parameters: list[list[nn.Parameter]] = []
        """Each group's parameters in their shapes, float32 views of the buffer: the model's own or, where it computes
        in a smaller format, those that its own are copies of.
        """
        self._pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        """The model's own parameters, each with its float32 one."""
        start = 0
        for group, lengths in zip(groups, sizes, strict=True):
            whole = slice(start, start + sum(lengths))
            self.parameters.append([])
            for parameter, length in zip(group, lengths, strict=True):
                self.parameters[-1].append(self._move(parameter, start, copied=copy_dtype is not None))
                start += length
            self.groups.append(nn.Parameter(self.values[whole]))
            self.groups[-1].grad = self.gradients[whole]
        self._copies: _Copies | None = None
        if copy_dtype is not None:
            self._copies = _Copies(self.values.to(copy_dtype), self.gradients.to(copy_dtype))
            self._use_copies(self._copies)

    @property
    def has_copies(self) -> bool:
        """Whether the model computes with copies in a smaller format, not with the float32 parameters themselves."""
        return self._copies is not None

    def _move(self, parameter: nn.Parameter, start: int, copied: bool) -> nn.Parameter:
        place = slice(start, start + parameter.numel())
        self.values[place] = parameter.detach().flatten()
        precise = nn.Parameter(self.values[place].view(parameter.shape)) if copied else parameter
        precise.data = self.values[place].view(parameter.shape)
        precise.grad = self.gradients[place].view(parameter.shape)
        self._pairs.append((parameter, precise))
        return precise

    def _use_copies(self, copies: _Copies) -> None:
        """Points the model's own parameters to the copies."""
        for parameter, precise in self._pairs:
            place = slice(precise.storage_offset(), precise.storage_offset() + precise.numel())
            parameter.grad = None  # torch refuses a gradient of another format than the data, even for a moment
            parameter.data = copies.values[place].view(precise.shape)
            parameter.grad = copies.gradients[place].view(precise.shape)

    @torch.no_grad()
    def accumulate_gradients(self) -> None:
        """Adds the copies' gradients to ``gradients``, and zeroes them. Does nothing without copies."""
        if self._copies is not None:
            self.gradients.add_(self._copies.gradients)
            self._copies.gradients.zero_()

    @torch.no_grad()
    def sync_copies(self) -> None:
        """Gives the copies the present values. Does nothing without copies."""
        if self._copies is not None:
            self._copies.values.copy_(self.values)

    @contextlib.contextmanager
    def full_precision(self) -> Generator[None]:
        """Within it the model's parameters are the float32 ones, to be read or written; not to be trained."""
        if self._copies is None:
            yield
            return
        for parameter, precise in self._pairs:
            parameter.grad = None
            parameter.data = precise.data
        try:
            yield
        finally:
            self._use_copies(self._copies)
            self.sync_copies()

    @torch.no_grad()
    def zero_grad(self) -> None:
        """Zeroes all gradients in place."""
        self.gradients.zero_()
        if self._copies is not None:
            self._copies.gradients.zero_()


@torch.no_grad()
def clip(gradients: Tensor, norm: Tensor, max_norm: float) -> None:
    """Scales ``gradients`` (N,), whose norm is ``norm`` (), down in place to ``max_norm`` if they are longer; 0
    switches it off.
    """
    if max_norm:
        gradients.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
