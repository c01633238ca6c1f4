"""How far an adapter changes what it was not asked for: pictures of prompts without the trigger word, against the base
model's of the same seeds.
"""

from __future__ import annotations

from torch import Tensor

from lora_studio.evaluation.style import interval, resamplings
from lora_studio.evaluation.value import Value


def drift(drawn: Tensor, base: Tensor) -> Value:
    """Distance of features (P, S, D) to the base model's of the same prompts and seeds, as a share of that between two
    of the base model's seeds: 0 is unchanged, 1 as different as another seed. S is at least 2.
    """
    moved, apart = _distances(drawn, base)
    return interval((moved.mean() / apart.mean()).item(), resampled(drawn, base))


def resampled(drawn: Tensor, base: Tensor) -> Tensor:
    """(``RESAMPLED``,) values of ``drift``, over resamplings that all sets of this shape share."""
    moved, apart = _distances(drawn, base)
    prompts, seeds = resamplings(*moved.shape)
    return moved[prompts, seeds].mean((1, 2)) / apart[prompts, seeds].mean((1, 2))


def _distances(drawn: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
    """(P, S) each: how far pictures moved, and how far the base model's are from those of another seed."""
    return (drawn - base).norm(dim=-1), (base - base.roll(1, 1)).norm(dim=-1)
