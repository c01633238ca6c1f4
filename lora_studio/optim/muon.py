"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): momentum whose steps are orthogonal matrices.

torch's own takes one matrix at a time, and refuses vectors and the four dimensions of a convolution's factor. An
adapter has hundreds of small factors of few shapes: here all of one shape are orthogonalized together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_MATCHED_RMS = 0.2
"""The root mean square of a step at a rate of 1, which is about that of AdamW's steps: both take the same rates (Liu et
al. 2025, §2.2).
"""


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay. A parameter of more than two dimensions is seen as the
    matrix of its first dimension by all others. What has a single row or column is no matrix: AdamW moves it.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 2e-4, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # ty: ignore[incompatible-method-override]
        """One step from the parameters' gradients. ``closure`` is not used."""
        for group in self.param_groups:
            moved: list[Tensor] = [parameter for parameter in group["params"] if parameter.grad is not None]
            if moved:
                torch._foreach_mul_(moved, 1 - group["lr"] * group["weight_decay"])
            self._move_matrices([each for each in moved if _is_matrix(each)], group["lr"], group["momentum"])
            self._move_vectors([each for each in moved if not _is_matrix(each)], group["lr"])

    def _move_matrices(self, matrices: list[Tensor], rate: float, momentum: float) -> None:
        alike: dict[torch.Size, list[Tensor]] = {}
        for matrix in matrices:
            alike.setdefault(matrix.shape, []).append(matrix)
        for shape, those in alike.items():
            averages = [self.state[one].setdefault("momentum", torch.zeros_like(one)) for one in those]
            gradients = _gradients(those)
            torch._foreach_lerp_(averages, gradients, 1 - momentum)
            ahead = torch.stack(torch._foreach_lerp(gradients, averages, momentum)).flatten(2)  # Nesterov
            steps = orthogonal(ahead).view(-1, *shape)
            longest = max(ahead.shape[1:])
            torch._foreach_add_(those, list(steps), alpha=-rate * _MATCHED_RMS * math.sqrt(longest))

    def _move_vectors(self, vectors: list[Tensor], rate: float) -> None:
        for one in vectors:
            if not self.state[one]:
                zeros, count = torch.zeros_like(one), torch.zeros(())
                self.state[one].update(step=count, exp_avg=zeros, exp_avg_sq=zeros.clone())
        states = [self.state[one] for one in vectors]
        averages, squares, counts = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
        adamw(
            vectors,
            _gradients(vectors),
            averages,
            squares,
            [],
            counts,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and min(parameter.shape[0], parameter[0].numel()) > 1


def orthogonal(matrices: Tensor) -> Tensor:
    """(M, rows, columns): of each matrix U S Vᵀ about U Vᵀ, its singular values between 0.7 and 1.2, by five steps of a
    quintic Newton–Schulz iteration (Jordan et al. 2024). A matrix of zeros stays one.
    """
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    found = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = found @ found.mT
        found = a * found + (b * gram + c * gram @ gram) @ found
    return found if wide is matrices else found.mT
