"""How much each part of a picture counts in the loss, by its mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lora_studio.config.slices import LossSettings
from lora_studio.dataset.cache import Cache
from lora_studio.dataset.items import Draw

LEAST_AREA = 1 / 16
"""The smallest share of a picture that can be given the weight of a whole one: a mean over less is mostly noise."""


def of_masks(masks: Tensor, settings: LossSettings, average: float) -> Tensor:
    """What each element's loss is multiplied by, before the mean over all elements is taken: so much that pictures have
    the weight of whole ones, each of them or on average (``mask_balance``). Masks of ones give ones, to the bit.

    Args:
        masks: (B, 1, h, w) float32, 0 where nothing is learned to 1.
        average: as ``average_area`` gives it.

    Returns:
        (B, 1, h, w) float32.
    """
    weights = _counting(masks, settings.mask_outside)
    area = weights.mean(dim=(1, 2, 3), keepdim=True) if settings.mask_balance == "picture" else torch.tensor(average)
    return weights / area.clamp(min=LEAST_AREA)


def average_area(cache: Cache, indices: Sequence[int], settings: LossSettings) -> float:
    """The share of a picture that is learned, with what counts outside its mask, on average over pictures by their
    indices; 1 without masks.
    """
    known = {index: _area(cache, index, settings) for index in set(indices)}
    return sum(known[index] for index in indices) / len(indices)


def _area(cache: Cache, index: int, settings: LossSettings) -> float:
    width, height = (side // cache.encoder.scale for side in cache.samples[index].bucket)
    draws = [Draw(index, copy=copy) for copy in range(len(cache.samples[index].copies))]
    masks = cache.masks(draws, torch.empty(1, 1, height, width))
    return 1.0 if masks is None else _counting(masks, settings.mask_outside).mean().item()


def _counting(masks: Tensor, outside: float) -> Tensor:
    """``masks`` with ``outside`` for 0; exactly 1 for 1."""
    return 1 - (1 - outside) * (1 - masks)
