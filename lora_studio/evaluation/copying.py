"""Whether drawn pictures are copies of training pictures: how alike the nearest ones are, whatever their shift and
whether one is mirrored, against how alike the training pictures are among themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 16
"""Side that latents are averaged to."""


class Nearest(NamedTuple):
    """The training picture that is most like a drawn one: its index, and their likeness from -1 to 1."""

    index: int
    likeness: float


def nearest(drawn: Sequence[Tensor], training: Sequence[Tensor]) -> list[Nearest]:
    """The most similar training picture of each drawn one; both as scaled latents (C, h, w)."""
    best = likeness(_compact(drawn), _compact(training)).max(dim=1)
    return [Nearest(*row) for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def among_themselves(training: Sequence[Tensor]) -> list[float]:
    """How alike each training picture and the most similar other one are."""
    compact = _compact(training)
    return likeness(compact, compact).fill_diagonal_(-1).max(dim=1).values.tolist()


def likeness(some: Tensor, others: Tensor) -> Tensor:
    """(M, N): the highest normalized cross-correlation of pictures (M, C, s, s) and (N, C, s, s) over all shifts and
    mirrorings. What wraps around at the edges counts as it comes.
    """
    ours, mirrored, theirs = (torch.fft.rfft2(_unit(of)) for of in (some, some.flip(-1), others))
    best = torch.full((len(some), len(others)), -1.0)
    for spectra in (ours, mirrored):
        for row, spectrum in enumerate(spectra):
            found = torch.fft.irfft2((spectrum.conj() * theirs).sum(1), s=some.shape[-2:])
            best[row] = torch.maximum(best[row], found.flatten(1).amax(1))
    return best


def _compact(latents: Sequence[Tensor]) -> Tensor:
    """(N, C, ``SIDE``, ``SIDE``) float32."""
    return torch.stack([F.adaptive_avg_pool2d(one.float(), SIDE) for one in latents])


def _unit(pictures: Tensor) -> Tensor:
    """Each channel of each picture without its mean, each picture of length 1."""
    centred = pictures - pictures.mean((2, 3), keepdim=True)
    return centred / centred.flatten(1).norm(dim=1).clamp_min(1e-6)[:, None, None, None]
