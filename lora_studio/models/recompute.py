"""Gradient checkpointing: activations that are computed again on the way back instead of being kept (Chen et al. 2016, *Training Deep Nets with Sublinear Memory Cost*)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import UNet2DConditionModel
from torch import nn


def enable(unet: UNet2DConditionModel, which: str) -> None:
    """Sets which blocks of ``unet`` recompute. The result is the same for each choice.

    Args:
        which: ``off``; ``all``; or ``largest``, the blocks of the one level that keeps the most.
    """
    unet.disable_gradient_checkpointing()
    if which == "off":
        return
    unet.enable_gradient_checkpointing()
    if which == "largest":
        chosen = {module for block in largest(unet) for module in block.modules()}
        for module in unet.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = module in chosen


def largest(unet: UNet2DConditionModel) -> list[nn.Module]:
    """The blocks of the level that keeps the most for the way back, on both sides: the outermost of SD 1 and 2, the innermost of SDXL with its ten transformer blocks in a row."""
    level = largest_level(unet.config)
    innermost = level == len(unet.down_blocks) - 1
    return [unet.down_blocks[level], unet.up_blocks[-1 - level], *([unet.mid_block] if innermost and unet.mid_block is not None else [])]


def largest_level(config: Mapping[str, Any]) -> int:
    """That level, 0 outermost, from a UNet's configuration. A transformer block keeps about three times what a resnet does."""
    widths, blocks, depth = config["block_out_channels"], config["down_block_types"], config.get("transformer_layers_per_block", 1)
    depths = depth if isinstance(depth, list | tuple) else [depth] * len(widths)
    kept = [width / 4**level * (1 + 3 * depths[level] * ("CrossAttn" in blocks[level])) for level, width in enumerate(widths)]
    return kept.index(max(kept))
