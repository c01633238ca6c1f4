"""Gradient checkpointing: activations that are computed again in the backward pass instead of being kept (Chen et al.
2016, *Training Deep Nets with Sublinear Memory Cost*).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, cast

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from lora_studio.errors import SettingsError
from lora_studio.language import tr


def enable(denoiser: Any, which: str, encoders: Iterable[nn.Module] = (), random: bool = False) -> None:
    """Sets which blocks of ``denoiser`` recompute, and whether the text encoders' layers do. The result is the same for
    each choice.

    Args:
        which: ``off``; ``all``; or ``largest``, the blocks of the one level of a UNet that keeps the most. Other
            networks have no levels: there it is ``all``.
        encoders: the text encoders under training; they keep little, and recompute with ``all`` alone.
        random: whether something in them is random, as dropout is, and must be drawn the same again. It keeps a step
            from being recorded.

    Raises:
        SettingsError: the denoiser cannot recompute.
    """
    for encoder in encoders:
        _enable_text(encoder, which == "all")
    if not getattr(denoiser, "_supports_gradient_checkpointing", False):
        if which != "off":
            raise SettingsError(
                tr("This base model does not support gradient checkpointing."),
                where="checkpointing",
                do=tr("Set it to off."),
            )
        return
    denoiser.disable_gradient_checkpointing()
    if which == "off":
        return
    denoiser.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=False, preserve_rng_state=random))
    if which == "largest" and isinstance(denoiser, UNet2DConditionModel):
        chosen = {module for block in largest(denoiser) for module in block.modules()}
        for module in denoiser.modules():
            if hasattr(module, "gradient_checkpointing"):
                cast(Any, module).gradient_checkpointing = module in chosen


def _enable_text(encoder: nn.Module, on: bool) -> None:
    """Layer by layer: transformers' own switch has the embeddings take a gradient as well, which nothing under training
    needs.
    """
    for layer in encoder.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.gradient_checkpointing = on
            # transformers declares the function on the models alone
            cast(Any, layer)._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)


def largest(unet: UNet2DConditionModel) -> list[nn.Module]:
    """The blocks of the level that keeps the most for the backward pass, on both sides: the outermost of SD 1 and 2,
    the innermost of SDXL with its ten transformer blocks in a row.
    """
    level = largest_level(unet.config)
    innermost = level == len(unet.down_blocks) - 1
    return [
        unet.down_blocks[level],
        unet.up_blocks[-1 - level],
        *([unet.mid_block] if innermost and unet.mid_block is not None else []),
    ]


def largest_level(config: Mapping[str, Any]) -> int:
    """That level, 0 outermost, from a UNet's configuration. A transformer block keeps about three times what a resnet
    does.
    """
    widths, blocks, depth = (
        config["block_out_channels"],
        config["down_block_types"],
        config.get("transformer_layers_per_block", 1),
    )
    depths = depth if isinstance(depth, list | tuple) else [depth] * len(widths)
    kept = [
        width / 4**level * (1 + 3 * depths[level] * ("CrossAttn" in blocks[level]))
        for level, width in enumerate(widths)
    ]
    return kept.index(max(kept))
