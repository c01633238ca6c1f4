"""Muon (Jordan et al. 2024): the update of each weight matrix is made orthogonal, so that all its directions learn."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable

import torch
from torch import nn

from .flat import FlatModel, captured


def orthogonal(x: torch.Tensor) -> torch.Tensor:
    """(N, rows, columns) with all singular values near 1, by five Newton-Schulz steps in bfloat16."""
    x = x.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


class FlatMuon(FlatModel):
    """`FlatModel` with Muon for the weights of convolutions and linear layers, and AdamW for everything else. The
    updates are as large as AdamW's (Liu et al. 2025), so the same rate serves both.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        device: torch.device,
        dtype: torch.dtype,
        lr: float,
        average: float,
        decay: float = 0.01,
    ):
        super().__init__(modules, device, dtype, lr, average, decay)
        self.decay = decay
        self.momentum, self.update = torch.zeros_like(self.grad), torch.zeros_like(self.grad)
        self.mine = torch.zeros_like(self.grad, dtype=torch.bool)
        self.matrices: dict[tuple[int, int], list[int]] = collections.defaultdict(list)
        for p, i in zip(self.params, self.at, strict=False):
            if p.dim() > 1 and min(p.shape[:2]) > 8:
                self.matrices[p.shape[0], p.numel() // p.shape[0]].append(i)
                self.mine[i : i + p.numel()] = True
        self.find = captured(self.find_update, device)

    def move(self, rate: float) -> None:
        """Lets AdamW move everything, and then puts Muon's matrices where Muon moves them."""
        before = self.master.data.clone()
        super().move(rate)
        self.find()
        moved = before * (1 - rate * self.decay) - rate * self.update
        self.master.data.copy_(torch.where(self.mine, moved, self.master.data))

    def find_update(self) -> None:
        """Writes the orthogonal updates into `update`."""
        self.momentum.lerp_(self.grad, 0.05)
        ahead = self.grad.lerp(self.momentum, 0.95)
        for (rows, columns), places in self.matrices.items():
            count = rows * columns
            found = orthogonal(torch.stack([ahead[i : i + count].view(rows, columns) for i in places]))
            for part, i in zip(found.float() * 0.2 * math.sqrt(max(rows, columns)), places, strict=True):
                self.update[i : i + count] = part.flatten()
