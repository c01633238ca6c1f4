"""Whether pictures still show what their prompts say, judged by the base model's own pictures of the same prompts.

A limit, and nothing to maximize: an artist draws other shapes than the base model, so her own pictures reach about a
half. At or above the level of the training pictures no loss can be shown; below it, subjects fade. The base model is
surer of some prompts than of others: one that always draws the same cup is hard to be unlike. So the level that the
training pictures reach for their captions is made one for the evaluation prompts. Letters as in ``perception``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lora_studio.evaluation.style import interval, resamplings
from lora_studio.evaluation.value import Value


def kept(pictures: Tensor, references: Tensor) -> Tensor:
    """(P, S) cosines of pictures (P, S, D) with what the base model draws of the same prompts, (P, R, D); both are
    ``perception.Seen.subject``.

    Each side is seen relative to its own mean over the prompts, which removes its style.
    """
    spread = references.flatten(0, 1).std(0)
    scale = spread + 0.1 * spread.mean()
    shown = (pictures - pictures.mean((0, 1))) / scale
    meant = (references.mean(1) - references.mean((0, 1))) / scale
    return F.cosine_similarity(shown, meant[:, None], dim=-1)


def level(training: Tensor, captioned: Tensor, prompts: Tensor) -> Value:
    """What the training pictures would reach if they showed the evaluation prompts.

    Args:
        training: (M, D) of training pictures.
        captioned: (M, R, D) of the base model's pictures of their captions; R at least 2.
        prompts: (P, R, D) of the base model's pictures of the evaluation prompts with the same seeds.
    """
    own, sure = value(kept(training[:, None], captioned)), consistency(captioned)
    share = consistency(prompts) / sure if sure > 0 else 1.0
    low, high = (None if end is None else end * share for end in (own.low, own.high))
    return Value(own.value * share, low, high)


def consistency(drawn: Tensor) -> float:
    """How alike pictures of a prompt are from seed to seed, (P, R, D): the mean of ``kept`` of each seed's against each
    other seed's.
    """
    seeds = range(drawn.shape[1])
    pairs = [(one, other) for one in seeds for other in seeds if one != other]
    return sum(kept(drawn[:, [one]], drawn[:, [other]]).mean().item() for one, other in pairs) / len(pairs)


def value(cosines: Tensor) -> Value:
    """The mean of ``kept``, with a 95 % bootstrap interval over prompts and seeds."""
    return interval(cosines.mean().item(), resampled(cosines))


def resampled(cosines: Tensor) -> Tensor:
    """(``RESAMPLED``,) means of ``kept``, over resamplings that all sets of this shape share."""
    prompts, seeds = resamplings(*cosines.shape)
    return cosines[prompts, seeds].mean((1, 2))
