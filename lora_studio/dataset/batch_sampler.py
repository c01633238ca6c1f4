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
from typing import NamedTuple

import numpy as np

from lora_studio.dataset.items import Bucket, Draw, Picture, Sample

_EPOCH, _STEP, _TURNS = 0, 1, 2


class _Row(NamedTuple):
    """The indices that one bucket draws from in an epoch."""

    own: np.ndarray
    """Every epoch, each as often as it stands here."""
    class_pictures: np.ndarray
    """In the order in which they take turns."""
    turns: int
    """How many class pictures come up in an epoch."""

    @property
    def size(self) -> int:
        return len(self.own) + self.turns

    def of(self, epoch: int) -> np.ndarray:
        """(size,) the indices of an epoch, not shuffled yet."""
        if not self.turns:
            return self.own
        turns = np.arange(epoch * self.turns, (epoch + 1) * self.turns) % len(self.class_pictures)
        return np.concatenate([self.own, self.class_pictures[turns]])


class BatchSampler:
    """The batches of a run. In an epoch every sample is drawn once, or as often as its picture repeats. All samples of
    a batch share one bucket; a bucket's last batch is filled with the first samples of its shuffled order.

    Class pictures are drawn as often as all others together, as in sd-scripts, and take turns over the epochs: few of
    them come up several times in one, of many only some. Each bucket draws as many of its own as it has a share of
    them, one at least. Copies of a picture are drawn equally often.

    Args:
        samples: all samples of the dataset.
        batch: samples per batch.
        seed: 0 or greater.
        among: indices of the samples to draw from, the training part of a split; None for all.
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
        caption_dropout: float = 0.0,
    ):
        self.batch, self.seed, self.caption_dropout = batch, seed, caption_dropout
        self._samples = samples
        chosen = range(len(samples)) if among is None else among
        own = _by_bucket(samples, [index for index in chosen if not samples[index].picture.regularisation])
        if not own or batch < 1:
            raise ValueError("nothing to draw from")
        others = _by_bucket(samples, [index for index in chosen if samples[index].picture.regularisation])
        self._rows = _rows(own, others, seed)
        self.own: list[int] = [index for indices in own.values() for index in indices]
        """What an epoch draws besides class pictures, each as often as it repeats."""
        self.steps_per_epoch: int = sum(-(-row.size // batch) for row in self._rows)
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def draw(self, step: int) -> list[Draw]:
        """The batch of ``step`` (0 for the first; with accumulation, count batches instead of optimizer steps)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        pictures = self._epoch(epoch)[place].tolist()
        chances = _chances(4 * self.batch, self.seed, _STEP, step).reshape(4, -1).tolist()
        return [self._draw(picture, *given) for picture, *given in zip(pictures, *chances, strict=True)]

    def _draw(self, picture: int, mirror: float, which: float, drop: float, copy: float) -> Draw:
        """One sample, by chances in [0, 1): half of the draws of a picture that may be mirrored are."""
        sample = self._samples[picture]
        return Draw(
            picture,
            bool(sample.mirrored) and mirror < 0.5,
            int(which * len(sample.captions)),
            drop < self.caption_dropout,
            int(copy * len(sample.copies)),
        )

    def _shuffled(self, epoch: int) -> np.ndarray:
        """One epoch's batches: (steps_per_epoch, batch) picture indices."""
        words = _words(sum(row.size for row in self._rows) + self.steps_per_epoch, self.seed, _EPOCH, epoch)
        batches = []
        for row in self._rows:
            ranks, words = words[: row.size], words[row.size :]
            full = -(-row.size // self.batch) * self.batch
            batches.append(np.resize(row.of(epoch)[np.argsort(ranks, kind="stable")], full).reshape(-1, self.batch))
        return np.concatenate(batches)[np.argsort(words, kind="stable")]


def _by_bucket(samples: Sequence[Sample], indices: Sequence[int]) -> dict[Bucket, list[int]]:
    """``indices`` by their samples' buckets, each as often as its picture repeats."""
    found: dict[Bucket, list[int]] = {}
    for index in indices:
        if repeats := samples[index].picture.repeats:
            found.setdefault(samples[index].bucket, []).extend([index] * repeats)
    return found


def _rows(own: dict[Bucket, list[int]], others: dict[Bucket, list[int]], seed: int) -> list[_Row]:
    """A row for each bucket. Those of ``others``, class pictures, are in an order that depends on ``seed``."""
    found = sorted({*own, *others})
    counts = [len(others.get(bucket, [])) for bucket in found]
    shares = _shares(sum(map(len, own.values())), counts)
    turns = [max(share, min(count, 1)) for share, count in zip(shares, counts, strict=True)]
    rows = []
    for place, (bucket, count) in enumerate(zip(found, turns, strict=True)):
        indices = np.array(others.get(bucket, []), dtype=np.int64)
        order = np.argsort(_words(len(indices), seed, _TURNS, place), kind="stable") if count else []
        rows.append(_Row(np.array(own.get(bucket, []), dtype=np.int64), indices[order], count))
    return [row for row in rows if row.size]


def _shares(total: int, counts: Sequence[int]) -> list[int]:
    """``total`` divided in proportion to ``counts``, the largest remainders rounded up; zeros if they are zeros."""
    whole = sum(counts)
    if not whole:
        return [0] * len(counts)
    shares = [total * count // whole for count in counts]
    remainders = sorted(range(len(counts)), key=lambda place: -(total * counts[place] % whole))
    for place in remainders[: total - sum(shares)]:
        shares[place] += 1
    return shares


def split(pictures: Sequence[Picture], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the pictures to train on, and of those held out for validation, about ``share`` of all.

    The split depends on content: a picture stays in its part when others are added, removed or renamed, and copies stay
    together. With a share above zero and at least four pictures, at least one is held out; at least one always trains.
    Class pictures all train, and do not count.
    """
    own = [picture for picture in pictures if not picture.regularisation]
    wanted = max(round(share * len(own)), int(share > 0)) if len(own) >= 4 else 0
    ranks = {picture.sha256: hashlib.sha256(f"{seed} {picture.sha256}".encode()).digest() for picture in own}
    held_out: set[str] = set()
    copies, count = Counter(picture.sha256 for picture in own), 0
    for content in sorted(ranks, key=ranks.__getitem__):
        if count < wanted and count + copies[content] < len(own):
            held_out.add(content)
            count += copies[content]
    sides: tuple[list[int], list[int]] = ([], [])
    for index, picture in enumerate(pictures):
        sides[not picture.regularisation and picture.sha256 in held_out].append(index)
    return sides


def _words(count: int, *key: int) -> np.ndarray:
    """``count`` random 64-bit words that depend only on ``key``."""
    return np.random.PCG64(np.random.SeedSequence(key)).random_raw(count)


def _chances(count: int, *key: int) -> np.ndarray:
    """``count`` random numbers in [0, 1), uniform over multiples of 2⁻⁵³."""
    return (_words(count, *key) >> np.uint64(11)) * 2.0**-53
