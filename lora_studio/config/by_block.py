"""Rank, alpha and learning rate of single blocks: lines such as ``up_blocks.1 rank=32 rate=0.5``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from lora_studio.adapters import block_names
from lora_studio.language import tr


class BlockLine(NamedTuple):
    """One line; None is what it leaves out."""

    block: str
    rank: int | None = None
    alpha: float | None = None
    rate: float | None = None
    """What the learning rate is multiplied by."""


_HIGHEST = {"rank": 1024, "alpha": 4096, "rate": 100}


@lru_cache(maxsize=256)
def read(line: str) -> BlockLine:
    """The line as data.

    Raises:
        ValueError: it is none; the message says why.
    """
    block, *options = line.split()
    given = dict(option.partition("=")[::2] for option in options)
    if "=" in block or not given:
        raise ValueError(tr("{line!r} must be a block and its values, such as up_blocks.1 rank=32", line=line))
    if unknown := given.keys() - _HIGHEST.keys():
        raise ValueError(tr("{name!r} in {line!r} is none of rank, alpha and rate", name=min(unknown), line=line))
    if len(given) < len(options):
        raise ValueError(tr("{line!r} gives one value twice", line=line))
    numbers = {name: _number(name, text, line) for name, text in given.items()}
    rank = numbers.pop("rank", None)
    return BlockLine(block, None if rank is None else int(rank), **numbers)


def _number(name: str, text: str, line: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= _HIGHEST[name] or name == "rank" and value % 1:
        if name == "rank":
            raise ValueError(
                tr(
                    "{name} in {line!r} must be a whole number above 0 and at most {most:,}",
                    name=name,
                    line=line,
                    most=_HIGHEST[name],
                )
            )
        raise ValueError(
            tr(
                "{name} in {line!r} must be a number above 0 and at most {most:,}",
                name=name,
                line=line,
                most=_HIGHEST[name],
            )
        )
    return value


def at(lines: Sequence[str], path: str) -> BlockLine:
    """What ``lines`` say of the layer at the canonical ``path``: for each value the smallest block's that has one."""
    found = [line for line in map(read, lines) if block_names.contains(line.block, path)]
    found.sort(key=lambda line: block_names.detail(line.block), reverse=True)
    rank = next((line.rank for line in found if line.rank is not None), None)
    alpha = next((line.alpha for line in found if line.alpha is not None), None)
    rate = next((line.rate for line in found if line.rate is not None), None)
    return BlockLine("", rank, alpha, rate)


def given(lines: Sequence[str]) -> set[str]:
    """Which of rank, alpha and rate any line gives."""
    return {name for line in map(read, lines) for name in _HIGHEST if getattr(line, name) is not None}


def repeated(lines: Sequence[str]) -> list[tuple[str, str]]:
    """(block, what) that more than one line gives, in the order of the lines."""
    counted = Counter(
        (line.block, name) for line in map(read, lines) for name in _HIGHEST if getattr(line, name) is not None
    )
    return [one for one, times in counted.items() if times > 1]


def ranks(lines: Sequence[str]) -> list[int]:
    """The ranks that lines give, rising."""
    return sorted({line.rank for line in map(read, lines) if line.rank is not None})
