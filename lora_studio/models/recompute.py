"""Gradient checkpointing: activations that are computed again on the way back instead of being kept (Chen et al. 2016, *Training Deep Nets with Sublinear Memory Cost*)."""

from __future__ import annotations

from diffusers import UNet2DConditionModel
from torch import nn


def enable(unet: UNet2DConditionModel, which: str) -> None:
    """Sets which blocks of ``unet`` recompute. The result is the same for each choice.

    Args:
        which: ``off``; ``all``; or ``largest``, the blocks of the outer half of the levels: they work on the most pixels and so keep most of what is kept.
    """
    unet.disable_gradient_checkpointing()
    if which == "off":
        return
    unet.enable_gradient_checkpointing()
    if which == "largest":
        for block in inner(unet):
            for module in block.modules():
                if hasattr(module, "gradient_checkpointing"):
                    module.gradient_checkpointing = False


def outer(levels: int) -> int:
    """How many of a UNet's levels, from the outside, ``largest`` means."""
    return -(-levels // 2)


def inner(unet: UNet2DConditionModel) -> list[nn.Module]:
    """The blocks that ``largest`` leaves as they are."""
    levels, count = len(unet.down_blocks), outer(len(unet.down_blocks))
    return [*unet.down_blocks[count:], *([unet.mid_block] if unet.mid_block is not None else []), *unet.up_blocks[:levels - count]]
