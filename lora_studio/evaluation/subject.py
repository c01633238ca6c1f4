"""Whether pictures still show what their prompts say, judged by the base model's own pictures of the same prompts.

A limit, and nothing to maximize: an artist draws other shapes than the base model, so her own pictures reach about a
half. At or above the level of the training pictures no loss can be shown; below it, subjects fade. Letters as in
``perception``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lora_studio.evaluation.measure import Value
from lora_studio.evaluation.style import interval, resamplings

REFERENCES = 2
"""Seeds of the base model's pictures of a prompt, at least, for ``kept``. They are not those that are judged: what the
same noise leads to is alike whatever the prompt says.
"""


def kept(pictures: Tensor, references: Tensor) -> Tensor:
    """(P, S) cosines of pictures (P, S, D) with what the base model draws of the same prompts, (P, R, D); both are
    ``perception.subject``.

    Each side is seen relative to its own mean over the prompts, which removes its style.
    """
    spread = references.flatten(0, 1).std(0)
    scale = spread + 0.1 * spread.mean()
    shown = (pictures - pictures.mean((0, 1))) / scale
    meant = (references.mean(1) - references.mean((0, 1))) / scale
    return F.cosine_similarity(shown, meant[:, None], dim=-1)


def value(cosines: Tensor) -> Value:
    """The mean of ``kept``, with a 95 % bootstrap interval over prompts and seeds."""
    prompts, seeds = resamplings(*cosines.shape)
    return interval(cosines.mean().item(), cosines[prompts, seeds].mean((1, 2)))
