"""What modules a model has, by canonical path, with the shapes of their weights: worked out from its configurations. No
torch.

A canonical path is a component (the folder of a model in diffusers' layout) and the module's name in it, as in
``unet.down_blocks.0.attentions.0.proj_in``. Shapes are (out, in) or (out, in, kh, kw).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """Where a weight is in a file: its key, and what has to be done to the tensor there."""

    key: str
    change: Callable[[Tensor], Tensor] = lambda tensor: tensor


def same(shape: Shape, own: Shape) -> bool:
    """Whether a weight of ``shape`` can be one of ``own``. Files may flatten the kernel of a wide convolution."""
    shape = completed(shape, own)
    if len(shape) == len(own):
        return shape == own
    return prod(own[2:]) > 1 and _flat(shape) == _flat(own)


def narrower(shape: Shape, own: Shape) -> bool:
    """Whether a weight of ``shape`` is ``own`` with fewer channels."""
    pairs = list(zip(_flat(completed(shape, own)), _flat(own), strict=True))
    return all(one <= other for one, other in pairs) and any(one < other for one, other in pairs)


def completed(shape: Shape, own: Shape) -> Shape:
    """``shape``, of which 0 stands for outputs or inputs that are not known, with those of ``own``, and its kernel."""
    return (shape[0] or own[0], shape[1] or own[1], *own[2:]) if 0 in shape[:2] else shape


def _flat(shape: Shape) -> Shape:
    return (shape[0], prod(shape[1:]))


def unet_modules(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Every linear layer and convolution of a ``UNet2DConditionModel`` of Stable Diffusion's kinds."""
    first, embedding = config["block_out_channels"][0], 4 * config["block_out_channels"][0]
    found: dict[str, Shape] = {
        "conv_in": (first, config["in_channels"], 3, 3),
        "time_embedding.linear_1": (embedding, first),
        "time_embedding.linear_2": (embedding, embedding),
        "conv_out": (config["out_channels"], first, 3, 3),
    }
    if config.get("addition_embed_type"):
        found["add_embedding.linear_1"] = (embedding, config["projection_class_embeddings_input_dim"])
        found["add_embedding.linear_2"] = (embedding, embedding)
    for block, inputs, outputs, depth in _stages(config):
        found |= _resnet(block, inputs, outputs, embedding)
        if depth:
            found |= _transformer(block.replace("resnets", "attentions"), outputs, depth, config)
    return {f"unet.{name}": shape for name, shape in (found | dict(_samplers(config))).items()}


def depths(config: Mapping[str, Any]) -> list[int]:
    """Transformer blocks in each transformer of a UNet's levels, outermost first; 0 where a level has none."""
    depth, kinds = config.get("transformer_layers_per_block", 1), config["down_block_types"]
    each = depth if isinstance(depth, list | tuple) else [depth] * len(kinds)
    return [count if "CrossAttn" in kind else 0 for count, kind in zip(each, kinds, strict=True)]


def _stages(config: Mapping[str, Any]) -> Iterator[tuple[str, int, int, int]]:
    """Every resnet in the order of the forward pass: its path, inputs, outputs, and the depth of the transformer behind
    it.
    """
    widths, each, layers = config["block_out_channels"], depths(config), config["layers_per_block"]
    last, width, skipped = len(widths) - 1, widths[0], [widths[0]]
    for level, wide in enumerate(widths):
        for index in range(layers):
            yield f"down_blocks.{level}.resnets.{index}", width, wide, each[level]
            width = wide
            skipped.append(width)
        if level < last:
            skipped.append(width)
    depth = config.get("transformer_layers_per_block", 1)
    yield "mid_block.resnets.0", width, width, depth[-1] if isinstance(depth, list | tuple) else depth
    yield "mid_block.resnets.1", width, width, 0
    for level in range(len(widths)):
        for index in range(layers + 1):
            wide = widths[last - level]
            yield f"up_blocks.{level}.resnets.{index}", width + skipped.pop(), wide, each[last - level]
            width = wide


def _samplers(config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    """The convolutions between levels."""
    widths = config["block_out_channels"]
    for level, width in enumerate(widths[:-1]):
        yield f"down_blocks.{level}.downsamplers.0.conv", (width, width, 3, 3)
    for level, width in enumerate(widths[:0:-1]):
        yield f"up_blocks.{level}.upsamplers.0.conv", (width, width, 3, 3)


def _resnet(block: str, inputs: int, outputs: int, embedding: int) -> dict[str, Shape]:
    found = {
        f"{block}.conv1": (outputs, inputs, 3, 3),
        f"{block}.time_emb_proj": (outputs, embedding),
        f"{block}.conv2": (outputs, outputs, 3, 3),
    }
    return found if inputs == outputs else found | {f"{block}.conv_shortcut": (outputs, inputs, 1, 1)}


def _transformer(block: str, width: int, depth: int, config: Mapping[str, Any]) -> dict[str, Shape]:
    kernel = () if config.get("use_linear_projection") else (1, 1)
    found: dict[str, Shape] = {f"{block}.proj_{end}": (width, width, *kernel) for end in ("in", "out")}
    for index in range(depth):
        inner = f"{block}.transformer_blocks.{index}"
        for attention, context in (("attn1", width), ("attn2", config["cross_attention_dim"])):
            found[f"{inner}.{attention}.to_q"] = (width, width)
            found[f"{inner}.{attention}.to_k"] = found[f"{inner}.{attention}.to_v"] = (width, context)
            found[f"{inner}.{attention}.to_out.0"] = (width, width)
        found[f"{inner}.ff.net.0.proj"] = (8 * width, width)
        found[f"{inner}.ff.net.2"] = (width, 4 * width)
    return found


def clip_modules(component: str, config: Mapping[str, Any], projected: bool = False) -> dict[str, Shape]:
    """Every linear layer of a CLIP text encoder; ``projected`` ones end in a projection of their summary."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    found: dict[str, Shape] = {}
    for index in range(config["num_hidden_layers"]):
        layer = f"{component}.text_model.encoder.layers.{index}"
        found |= {f"{layer}.self_attn.{letter}_proj": (width, width) for letter in ("q", "k", "v", "out")}
        found |= {f"{layer}.mlp.fc1": (inner, width), f"{layer}.mlp.fc2": (width, inner)}
    return found | ({f"{component}.text_projection": (config["projection_dim"], width)} if projected else {})
