"""How far an adapter changes what it was not asked for: pictures of prompts without the trigger word, against the base
model's of the same seeds.
"""

from __future__ import annotations

from torch import Tensor

from lora_studio.evaluation.measure import Value
from lora_studio.evaluation.style import interval, resamplings


def drift(drawn: Tensor, base: Tensor) -> Value:
    """Distance of features (P, S, D) to the base model's of the same prompts and seeds, as a share of that between two
    of the base model's seeds: 0 is unchanged, 1 as different as another seed. S is at least 2.
    """
    moved, apart = (drawn - base).norm(dim=-1), (base - base.roll(1, 1)).norm(dim=-1)
    prompts, seeds = resamplings(*moved.shape)
    ratios = moved[prompts, seeds].mean((1, 2)) / apart[prompts, seeds].mean((1, 2))
    return interval((moved.mean() / apart.mean()).item(), ratios)
