"""The samples of each step, a pure function of (seed, step), so that a resumed run draws the same as an uninterrupted
one.

Random numbers are raw PCG64 words from a SeedSequence: numpy guarantees these streams for all versions (NEP 19), but
not ``shuffle`` or ``random``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from lora_studio.dataset.items import Bucket, Draw, Picture, Sample

_EPOCH, _STEP = 0, 1


class BatchSampler:
    """The batches of a run. In an epoch every sample is drawn once, or as often as its picture repeats. All samples of
    a batch share one bucket; a bucket's last batch is filled with the first samples of its shuffled order.

    Args:
        samples: all samples of the dataset.
        batch: samples per batch.
        seed: 0 or greater.
        among: indices of the samples to draw from, the training part of a split; None for all.
        flip: mirror half of the draws, at random.
        caption_dropout: share of the draws without caption.

    Raises:
        ValueError: there is nothing to draw from.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        batch: int,
        seed: int,
        *,
        among: Sequence[int] | None = None,
        flip: bool = False,
        caption_dropout: float = 0.0,
    ):
        self.batch, self.seed, self.flip, self.caption_dropout = batch, seed, flip, caption_dropout
        self._variants = [len(sample.captions) for sample in samples]
        rows: dict[Bucket, list[int]] = {}
        for index in range(len(samples)) if among is None else among:
            sample = samples[index]
            rows.setdefault(sample.bucket, []).extend([index] * sample.picture.repeats)
        self._rows = [np.array(row) for _, row in sorted(rows.items()) if row]
        if not self._rows or batch < 1:
            raise ValueError("nothing to draw from")
        self.steps_per_epoch: int = sum(-(-len(row) // batch) for row in self._rows)
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def draw(self, step: int) -> list[Draw]:
        """The batch of ``step`` (0 for the first; with accumulation, count batches instead of optimizer steps)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        pictures = self._epoch(epoch)[place].tolist()
        chances = _chances(3 * self.batch, self.seed, _STEP, step).reshape(3, -1).tolist()
        return [
            Draw(
                picture,
                self.flip and mirror < 0.5,
                int(which * self._variants[picture]),
                drop < self.caption_dropout,
            )
            for picture, mirror, which, drop in zip(pictures, *chances, strict=True)
        ]

    def _shuffled(self, epoch: int) -> np.ndarray:
        """One epoch's batches: (steps_per_epoch, batch) picture indices."""
        words = _words(sum(map(len, self._rows)) + self.steps_per_epoch, self.seed, _EPOCH, epoch)
        batches = []
        for row in self._rows:
            ranks, words = words[: len(row)], words[len(row) :]
            full = -(-len(row) // self.batch) * self.batch
            batches.append(np.resize(row[np.argsort(ranks, kind="stable")], full).reshape(-1, self.batch))
        return np.concatenate(batches)[np.argsort(words, kind="stable")]


def split(pictures: Sequence[Picture], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the pictures to train on, and of those held out for validation, about ``share`` of all.

    The split depends on content: a picture stays in its part when others are added, removed or renamed, and copies stay
    together. With a share above zero and at least four pictures, at least one is held out; at least one always trains.
    """
    wanted = max(round(share * len(pictures)), int(share > 0)) if len(pictures) >= 4 else 0
    ranks = {picture.sha256: hashlib.sha256(f"{seed} {picture.sha256}".encode()).digest() for picture in pictures}
    held_out: set[str] = set()
    copies, count = Counter(picture.sha256 for picture in pictures), 0
    for content in sorted(ranks, key=ranks.__getitem__):
        if count < wanted and count + copies[content] < len(pictures):
            held_out.add(content)
            count += copies[content]
    sides: tuple[list[int], list[int]] = ([], [])
    for index, picture in enumerate(pictures):
        sides[picture.sha256 in held_out].append(index)
    return sides


def _words(count: int, *key: int) -> np.ndarray:
    """``count`` random 64-bit words that depend only on ``key``."""
    return np.random.PCG64(np.random.SeedSequence(key)).random_raw(count)


def _chances(count: int, *key: int) -> np.ndarray:
    """``count`` random numbers in [0, 1), uniform over multiples of 2⁻⁵³."""
    return (_words(count, *key) >> np.uint64(11)) * 2.0**-53
