"""Random numbers as functions of (seed, purpose, step): no generator's state need be saved to resume a run."""

from __future__ import annotations

import hashlib
import struct

import torch

NOISE, DROPOUT, VALIDATION, START, PAIRS = range(5)
"""What a generator is for: keeps the streams of one step apart."""


def seed_of(*keys: int) -> int:
    """A 63-bit seed that is a function of ``keys`` alone, such as (seed, purpose, step)."""
    digest = hashlib.sha256(struct.pack(f"<{len(keys)}q", *keys)).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*keys: int) -> torch.Generator:
    """A CPU generator seeded with ``seed_of(*keys)``."""
    return torch.Generator().manual_seed(seed_of(*keys))
