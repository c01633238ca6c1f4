"""Many small parameters laid end to end in one buffer, and their gradients in another.

An adapter has hundreds of small tensors: an optimizer that visits them one by one spends its time on starting kernels. Over a buffer it takes a step in a few,
gradients are clipped and cleared in one each, and processes exchange them in one go.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_ALIGNED = 32
"""Every parameter begins at a multiple of that many elements, as vector units like it; what lies between stays zero."""


class Flat:
    """Lays ``groups`` of float32 parameters of one device out anew: each keeps its shape and value, but shares the buffers' memory from now on.

    Gradients are there from the start, are added to in place, and must be cleared in place.
    """

    def __init__(self, groups: Sequence[Sequence[nn.Parameter]]):
        sizes = [[-(-parameter.numel() // _ALIGNED) * _ALIGNED for parameter in group] for group in groups]
        total, device = sum(map(sum, sizes)), groups[0][0].device
        self.values = torch.zeros(total, device=device)
        self.gradients = torch.zeros(total, device=device)
        """(N,) float32: of all parameters."""
        self.groups: list[nn.Parameter] = []
        """One 1-D parameter for each group, over the same memory."""
        start = 0
        for group, lengths in zip(groups, sizes, strict=True):
            whole = slice(start, start + sum(lengths))
            for parameter, length in zip(group, lengths, strict=True):
                self._move(parameter, start)
                start += length
            self.groups.append(nn.Parameter(self.values[whole]))
            self.groups[-1].grad = self.gradients[whole]

    def _move(self, parameter: nn.Parameter, start: int) -> None:
        place = slice(start, start + parameter.numel())
        self.values[place] = parameter.detach().flatten()
        parameter.data = self.values[place].view(parameter.shape)
        parameter.grad = self.gradients[place].view(parameter.shape)


def clip(gradients: Tensor, longest: float) -> float:
    """Scales ``gradients`` (N,) down in place to the length ``longest``, if they are longer and it is not 0; their length before."""
    norm = gradients.norm()
    if longest:
        gradients.mul_((longest / (norm + 1e-6)).clamp(max=1.0))
    return norm.item()
