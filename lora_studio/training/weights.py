"""How much each part of a picture counts in the loss, by its mask."""

from __future__ import annotations

from torch import Tensor

LEAST_AREA = 1 / 16
"""The smallest share of a picture that counts as much as a whole one where masks are normalised."""


def of_masks(masks: Tensor, outside: float, normalise: bool) -> Tensor:
    """What each element's loss is multiplied by, before the mean over all elements is taken.

    Masks of ones give ones, to the bit.

    Args:
        masks: (B, 1, h, w) float32, 0 where nothing is learned to 1.
        outside: what counts where a mask is 0.
        normalise: give each picture the weight of a whole one, so that the mean is over what is learned. A picture of
            which less than ``LEAST_AREA`` is learned counts less in proportion: a mean over so little is mostly noise.

    Returns:
        (B, 1, h, w) float32.
    """
    weights = 1 - (1 - outside) * (1 - masks)
    if normalise:
        weights = weights / weights.mean(dim=(1, 2, 3), keepdim=True).clamp(min=LEAST_AREA)
    return weights
