"""Whether drawn pictures are copies of training pictures: how alike the nearest ones are, whatever their shift and
whether one is mirrored, against what pictures that are no copies reach.

Both are compared in pixels, small and without what is coarse: white paper around a thing in the middle is no likeness,
while its lines are. ``docs/experiments.md`` has what else was tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 48
"""Side that pictures are made small to."""
_WINDOW = 9
"""Each pixel is seen relative to the mean of so many around it, along each side."""
LIKENESS = 0.85
"""No picture is called a copy below this."""
_SHARE = 0.95
_FEWEST = 20
"""Training pictures from which on their likeness among themselves says what an artist repeats."""


class Nearest(NamedTuple):
    """The training picture that is most like a drawn one: its index, and their likeness from -1 to 1."""

    index: int
    likeness: float


class CopyScale:
    """Finds copies of ``training`` pictures; all pictures are (3, H, W) float32 in [-1, 1], of any sizes."""

    def __init__(self, training: Iterable[Tensor]):
        self.training = details(training)

    def nearest(self, pictures: Iterable[Tensor]) -> list[Nearest]:
        """The most similar training picture of each."""
        best = likeness(details(pictures), self.training).max(dim=1)
        return [Nearest(*row) for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)]

    def limit(self, unrelated: Sequence[float]) -> float:
        """Above it a picture may be a copy: what 5 % of those are that cannot be copies, ``LIKENESS`` at least.

        Args:
            unrelated: likeness of the base model's own pictures to their nearest training pictures. They alone count
                where training pictures are too few to be compared with each other.
        """
        sets = [list(unrelated)]
        if len(self.training) >= _FEWEST:
            sets.append(likeness(self.training, self.training).fill_diagonal_(-1).amax(1).tolist())
        return max([LIKENESS, *(torch.tensor(one).quantile(_SHARE).item() for one in sets if one)])


def details(pictures: Iterable[Tensor]) -> Tensor:
    """(N, 3, ``SIDE``, ``SIDE``): the squares in the middle of pictures, made small, relative to the mean around each
    pixel.
    """
    small = torch.stack([F.adaptive_avg_pool2d(_square(one).float(), SIDE) for one in pictures])
    around = F.avg_pool2d(F.pad(small, (_WINDOW // 2,) * 4, mode="replicate"), _WINDOW, 1)
    return small - around


def likeness(some: Tensor, others: Tensor) -> Tensor:
    """(M, N): the highest normalized cross-correlation of pictures (M, C, s, s) and (N, C, s, s) over all shifts and
    mirrorings (Lewis 1995, *Fast Normalized Cross-Correlation*). What wraps around at the edges counts as it comes.
    """
    ours, mirrored, theirs = (torch.fft.rfft2(_unit(of)) for of in (some, some.flip(-1), others))
    best = torch.full((len(some), len(others)), -1.0)
    for spectra in (ours, mirrored):
        for row, spectrum in enumerate(spectra):
            found = torch.fft.irfft2((spectrum.conj() * theirs).sum(1), s=some.shape[-2:])
            best[row] = torch.maximum(best[row], found.flatten(1).amax(1))
    return best


def _square(picture: Tensor) -> Tensor:
    height, width = picture.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[..., top : top + side, left : left + side]


def _unit(pictures: Tensor) -> Tensor:
    """Each channel of each picture without its mean, each picture of length 1."""
    centred = pictures - pictures.mean((2, 3), keepdim=True)
    return centred / centred.flatten(1).norm(dim=1).clamp_min(1e-6)[:, None, None, None]
