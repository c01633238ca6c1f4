"""The original trainers' layout of a checkpoint, one ``.safetensors`` file, against diffusers' names of the same
weights.

From rules, not from tables: the names follow from how many levels and resnets a model has. The layouts are those of the
reference implementations: CompVis latent-diffusion (``openaimodel.UNetModel``, ``model.Encoder``/``Decoder``),
OpenCLIP's text transformer, Stability's generative-models for SDXL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lora_studio.families.layout import Shape, Source

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_WORDS = {"conv_shortcut": "nin_shortcut", "conv_norm_out": "norm_out"}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPENCLIP = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn": "attn",
}


def unet_source(name: str, resnets: int, with_attention: list[bool]) -> Source:
    """Where the UNet's weight ``name`` (diffusers' name) is.

    Args:
        resnets: resnets of each level of the encoder (the decoder has one more).
        with_attention: for each level of the decoder, whether it has transformers: its upsampler follows them.
    """
    module, _, leaf = name.rpartition(".")
    if module in _UNET_ENDS:
        return Source(f"{_UNET_ENDS[module]}.{leaf}")
    side, _, rest = module.partition(".")
    level, kind, index, inner = _place(side, rest)
    if side == "mid_block":
        block = "middle_block." + ("1" if kind == "attentions" else str(2 * index))
    elif side == "down_blocks":
        number = (level + 1) * (resnets + 1) if kind == "downsamplers" else 1 + level * (resnets + 1) + index
        block = f"input_blocks.{number}.{int(kind == 'attentions')}"
    else:
        place = 1 + with_attention[level] if kind == "upsamplers" else int(kind == "attentions")
        block = f"output_blocks.{level * (resnets + 1) + (resnets if kind == 'upsamplers' else index)}.{place}"
    if kind == "resnets":
        inner = _RESNET[inner]
    elif kind == "downsamplers":
        inner = "op"
    return Source(f"{block}.{inner}.{leaf}")


def _place(side: str, rest: str) -> tuple[int, str, int, str]:
    """``0.attentions.1.norm`` -> (0, attentions, 1, norm); the middle has no level."""
    level, _, rest = ("0", "", rest) if side == "mid_block" else rest.partition(".")
    kind, index, inner = rest.split(".", 2)
    return int(level), kind, int(index), inner


def vae_source(name: str, levels: int) -> Source:
    """Where the VAE's weight ``name`` is; ``levels`` is how many it has, for its decoder counts them from the other
    end.
    """
    if found := re.match(r"(encoder|decoder)\.mid_block\.attentions\.0\.(.+)\.(weight|bias)$", name):
        side, inner, leaf = found.groups()
        return Source(
            f"{side}.mid.attn_1.{_VAE_ATTENTION[inner]}.{leaf}",
            lambda tensor: tensor.flatten(1) if tensor.ndim == 4 else tensor,
        )
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"encoder\.down_blocks\.(\d)\.resnets", r"encoder.down.\1.block", name)
    name = re.sub(r"encoder\.down_blocks\.(\d)\.downsamplers\.0", r"encoder.down.\1.downsample", name)
    name = re.sub(r"decoder\.up_blocks\.(\d)\.resnets", lambda m: f"decoder.up.{levels - 1 - int(m[1])}.block", name)
    name = re.sub(
        r"decoder\.up_blocks\.(\d)\.upsamplers\.0", lambda m: f"decoder.up.{levels - 1 - int(m[1])}.upsample", name
    )
    for ours, theirs in _VAE_WORDS.items():
        name = name.replace(ours, theirs)
    return Source(name)


def text_sources(name: str, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> list[Source]:
    """Where a text encoder's weight ``name`` can be, in OpenCLIP's layout or CLIP's own, which some files shorten."""
    full = name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"
    if "positional_embedding" in shapes:
        return [openclip_source(full, config["hidden_size"])]
    return [Source(full), Source(full.removeprefix("text_model."))]


def openclip_source(name: str, width: int) -> Source:
    """Where an OpenCLIP text encoder's weight is; q, k and v of ``width`` rows each are stacked in it."""
    if name == "text_projection.weight":
        return Source("text_projection", lambda tensor: tensor.T)
    if found := re.match(r"(.+self_attn)\.([qkv])_proj\.(weight|bias)$", name):
        module, letter, leaf = found.groups()
        rows = slice("qkv".index(letter) * width, ("qkv".index(letter) + 1) * width)
        return Source(f"{_openclip(module)}.in_proj_{leaf}", lambda tensor: tensor[rows])
    return Source(_openclip(name))


def _openclip(name: str) -> str:
    for ours, theirs in _OPENCLIP.items():
        name = name.replace(ours, theirs)
    return name


def fit_unet(config: dict[str, Any], shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The shipped configuration with the widths that the file's shapes tell (keys without their prefix).

    Raises:
        KeyError: the file lacks a weight that tells one.
    """
    step = config["layers_per_block"] + 1
    channels = [
        shapes[f"input_blocks.{1 + level * step}.0.out_layers.3.weight"][0]
        for level in range(len(config["block_out_channels"]))
    ]
    first = next(key for key in shapes if key.endswith("attn2.to_k.weight"))
    fitted = {
        **config,
        "block_out_channels": channels,
        "cross_attention_dim": shapes[first][1],
        "in_channels": shapes["input_blocks.0.0.weight"][1],
    }
    if isinstance(
        config["attention_head_dim"], list
    ):  # diffusers calls it so, but it counts the heads, of 64 channels each
        fitted["attention_head_dim"] = [_heads(width) for width in channels]
    if config.get("addition_embed_type"):
        fitted["projection_class_embeddings_input_dim"] = shapes["label_emb.0.0.weight"][1]
    return fitted


def fit_vae(config: dict[str, Any], shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """As ``fit_unet``, for the VAE."""
    channels = [
        shapes[f"encoder.down.{level}.block.0.conv2.weight"][0] for level in range(len(config["block_out_channels"]))
    ]
    return {**config, "block_out_channels": channels, "latent_channels": shapes["decoder.conv_in.weight"][1]}


def fit_text(config: dict[str, Any], shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """As ``fit_unet``, for a text encoder of either layout."""
    shapes = {_full(key): shape for key, shape in shapes.items()}
    openclip = "positional_embedding" in shapes
    embedding = shapes["token_embedding.weight" if openclip else "text_model.embeddings.token_embedding.weight"]
    inner = shapes[
        "transformer.resblocks.0.mlp.c_fc.weight" if openclip else "text_model.encoder.layers.0.mlp.fc1.weight"
    ][0]
    fitted = {
        **config,
        "vocab_size": embedding[0],
        "hidden_size": embedding[1],
        "intermediate_size": inner,
        "num_attention_heads": _heads(embedding[1]),
    }
    if "text_projection.weight" in shapes:
        return {**fitted, "projection_dim": shapes["text_projection.weight"][0]}
    return {**fitted, "projection_dim": shapes["text_projection"][1]} if "text_projection" in shapes else fitted


def _full(key: str) -> str:
    """CLIP's key with the ``text_model.`` that some files lack."""
    return f"text_model.{key}" if key.startswith(("embeddings.", "encoder.layers.", "final_layer_norm.")) else key


def _heads(width: int) -> int:
    return max(1, width // 64)
