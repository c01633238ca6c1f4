"""Many small parameters laid end to end in one buffer, and their gradients in another.

An adapter has hundreds of small tensors: an optimizer that visits them one by one spends its time on starting kernels.
Over a buffer it takes a step in a few, gradients are clipped and cleared in one each, and processes exchange them in
one go.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

_ALIGNED = 32
"""Every parameter begins at a multiple of that many elements, as vector units like it; what lies between stays zero."""


class Flat:
    """Lays ``groups`` of float32 parameters of one device out anew: each keeps its shape and value, but shares the
    buffers' memory from now on.

    Gradients are there from the start, are added to in place, and must be cleared in place.

    Args:
        low: a smaller format for the model to compute in (Micikevicius et al. 2018, §3.1). Its parameters then hold
            copies of the buffer in that format, and
            their gradients come in it too: ``gather`` after each way back, ``spread`` after each change of the buffer.
    """

    def __init__(self, groups: Sequence[Sequence[nn.Parameter]], low: torch.dtype | None = None):
        sizes = [[-(-parameter.numel() // _ALIGNED) * _ALIGNED for parameter in group] for group in groups]
        total, device = sum(map(sum, sizes)), groups[0][0].device
        self.values = torch.zeros(total, device=device)
        """(N,) float32: all parameters."""
        self.gathered = torch.zeros(total + _ALIGNED, device=device)
        """(N + 32,) float32: what processes exchange in one go, the gradients and the loss."""
        self.gradients = self.gathered[:total]
        """(N,) float32: of all parameters."""
        self.loss = self.gathered[total]
        """() float32: of the batches that they come from."""
        self.groups: list[nn.Parameter] = []
        """One 1-D parameter for each group, over the same memory."""
        self.parts: list[list[nn.Parameter]] = []
        """Each group's parameters in their shapes, over the same memory: the model's own, or, where it computes in a
        smaller format, those that its are copies of.
        """
        self._own: list[tuple[nn.Parameter, nn.Parameter]] = []
        start = 0
        for group, lengths in zip(groups, sizes, strict=True):
            whole = slice(start, start + sum(lengths))
            self.parts.append([])
            for parameter, length in zip(group, lengths, strict=True):
                self.parts[-1].append(self._move(parameter, start, copied=low is not None))
                start += length
            self.groups.append(nn.Parameter(self.values[whole]))
            self.groups[-1].grad = self.gradients[whole]
        self._low = self._low_gradients = None
        if low is not None:
            self._low, self._low_gradients = self.values.to(low), self.gradients.to(low)
            self.spread()
            self._lower()

    @property
    def same(self) -> bool:
        """Whether the model computes with the float32 parameters themselves, not with copies in a smaller format."""
        return self._low is None

    def _move(self, parameter: nn.Parameter, start: int, copied: bool) -> nn.Parameter:
        place = slice(start, start + parameter.numel())
        self.values[place] = parameter.detach().flatten()
        precise = nn.Parameter(self.values[place].view(parameter.shape)) if copied else parameter
        precise.data = self.values[place].view(parameter.shape)
        precise.grad = self.gradients[place].view(parameter.shape)
        self._own.append((parameter, precise))
        return precise

    def _lower(self) -> None:
        """Has the model's parameters hold the copies."""
        for parameter, precise in self._own:
            place = slice(precise.storage_offset(), precise.storage_offset() + precise.numel())
            parameter.grad = None  # of another format than the data for a moment, which torch refuses
            parameter.data = self._low[place].view(precise.shape)
            parameter.grad = self._low_gradients[place].view(precise.shape)

    @torch.no_grad()
    def gather(self) -> None:
        """Adds what the way back left in a smaller format to ``gradients``, and clears it."""
        if self._low is not None:
            self.gradients.add_(self._low_gradients)
            self._low_gradients.zero_()

    @torch.no_grad()
    def spread(self) -> None:
        """Has the model compute with the present values."""
        if self._low is not None:
            self._low.copy_(self.values)

    @contextlib.contextmanager
    def precise(self) -> Iterator[None]:
        """Within it the model's parameters are the float32 ones themselves, to be read or written. Not to be trained
        there.
        """
        if self._low is None:
            yield
            return
        for parameter, precise in self._own:
            parameter.grad = None
            parameter.data = precise.data
        try:
            yield
        finally:
            self._lower()
            self.spread()

    @torch.no_grad()
    def clear(self) -> None:
        """Forgets all gradients."""
        self.gradients.zero_()
        if self._low is not None:
            self._low_gradients.zero_()


@torch.no_grad()
def clip(gradients: Tensor, norm: Tensor, longest: float) -> None:
    """Scales ``gradients`` (N,), whose length is ``norm``, down in place to the length ``longest``, if they are longer
    and it is not 0.
    """
    if longest:
        gradients.mul_((longest / (norm + 1e-6)).clamp(max=1.0))
