"""How many threads a run on a CPU computes with: as many as make it faster, which is often fewer than there are.

A small model's operations are short. On two cores that something else uses too, or on a virtual machine's, splitting
each of them takes longer than doing it, and a run on one thread can be twice as fast as on two. No table predicts that,
so it is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

TRIES = 2
WORTH = 0.9
"""Twice the threads must take at most this share of the time."""


def fastest(work: Callable[[], object], most: int) -> int:
    """Sets and returns the number of threads, of 1, 2, 4 … up to ``most``, with which ``work`` is fastest.

    Results may differ in the last bits between numbers of threads, so a run keeps the one that it started with. Where
    only one is possible, ``work`` is not done.
    """
    if most == 1:
        torch.set_num_threads(1)
        return 1
    best, shortest = 1, _seconds(work, 1)
    for count in _doubled(most):
        seconds = _seconds(work, count)
        if seconds > WORTH * shortest:
            break
        best, shortest = count, seconds
    torch.set_num_threads(best)
    return best


def _doubled(most: int) -> list[int]:
    """
    >>> _doubled(1), _doubled(2), _doubled(6)
    ([], [2], [2, 4, 6])
    """
    return [min(2**power, most) for power in range(1, (most - 1).bit_length() + 1)]


def _seconds(work: Callable[[], object], threads: int) -> float:
    """The shortest of a few tries, after one to warm up."""
    torch.set_num_threads(threads)
    work()
    times = []
    for _ in range(TRIES):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)
