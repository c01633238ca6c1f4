"""Finds pictures that look alike, by a difference hash and a mean colour of a few bytes.

The hash (dHash, after N. Krawetz's "Kind of like that", 2013) has a bit for each cell of a coarse grid whose right
neighbour is brighter, and one for the neighbour below, by more than JPEG noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

_CELLS = 8
_RISE = 4
"""Smallest increase between neighbouring cells, of 255, that sets a bit."""
_MOST_BITS = 5
"""Pictures look alike if at most this many of their 128 bits differ…"""
_MOST_COLOUR = 6
"""…and no channel of their mean colours differs by more than this, of 255."""
_ROWS = 128


def likeness(picture: Image.Image) -> str:
    """The look of an RGB image as 38 hexadecimal digits: 16 bytes of hash, 3 of mean colour."""
    grid = picture.resize((_CELLS + 1, _CELLS + 1), Image.Resampling.BOX)
    grey = np.asarray(grid.convert("L")).astype(np.int16)
    rises = np.stack((np.diff(grey, axis=1)[:_CELLS], np.diff(grey, axis=0)[:, :_CELLS])) >= _RISE
    mean = np.asarray(grid).reshape(-1, 3).mean(axis=0)
    return np.packbits(rises).tobytes().hex() + mean.round().astype(np.uint8).tobytes().hex()


def groups(looks: Sequence[str]) -> list[list[int]]:
    """Indices of pictures that look alike, in groups of two or more.

    Each picture joins the first one that it resembles. That takes n²/2 comparisons of 16 bytes (0.2 s for 5,000
    pictures), in memory for a few rows.
    """
    if len(looks) < 2:
        return []
    table = np.frombuffer(bytes.fromhex("".join(looks)), np.uint8).reshape(len(looks), -1)
    bits, colour = np.ascontiguousarray(table[:, :16]).view(np.uint64), table[:, 16:].astype(np.int16)
    heads = np.arange(len(looks))
    for start in range(0, len(looks), _ROWS):
        rows = slice(start, start + _ROWS)
        alike = sum(np.bitwise_count(bits[rows, None, word] ^ bits[None, :, word]) for word in range(2)) <= _MOST_BITS
        for channel in range(3):
            alike &= np.abs(colour[rows, None, channel] - colour[None, :, channel]) <= _MOST_COLOUR
        for row, first in enumerate(alike.argmax(axis=1), start):  # at the latest itself
            heads[row] = heads[first] if first < row else row
    found: dict[int, list[int]] = {}
    for index, head in enumerate(heads.tolist()):
        found.setdefault(head, []).append(index)
    return [members for members in found.values() if len(members) > 1]
