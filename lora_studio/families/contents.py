"""What a weight file holds: whole models, or the parts that people keep in files of their own. From keys and shapes
alone.

A part's keys are translated to those of the original layout, without a prefix, whatever the file calls them: original
names under any prefix (ComfyUI's folders ``diffusion_models``, ``vae`` and ``text_encoders`` have none) or diffusers'
and transformers' names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lora_studio.families import ldm_keys
from lora_studio.families.layout import Shape

_UNET_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "unet.", "")
_VAE_PREFIXES = ("first_stage_model.", "vae.", "")
_UNET = ("input_blocks.0.0.weight", "out.2.weight")
_UNET_ROOTS = r"(?:input_blocks|middle_block|output_blocks|time_embed|label_emb|out)\."
_DIFFUSERS_UNET = "down_blocks.0.resnets.0.time_emb_proj.weight"
_DIFFUSERS_UNET_ROOTS = (
    r"(?:down_blocks|mid_block|up_blocks|conv_in|conv_out|conv_norm_out|time_embedding|add_embedding)\."
)
_VAE, _DIFFUSERS_VAE = "decoder.mid.block_1.norm1.weight", "decoder.mid_block.resnets.0.norm1.weight"
_VAE_ROOTS = r"(?:encoder\.(?!layers)|decoder\.|quant_conv|post_quant_conv|loss\.)"
_TEXT_ROOTS = (
    r"text_model\.|embeddings\.|encoder\.layers\.|final_layer_norm|text_projection|transformer\.resblocks\."
    r"|positional_embedding|token_embedding|ln_final|logit_scale|attn_mask"
)
_EMBEDDING = re.compile(r"(.*?)((?:text_model\.)?(?:embeddings\.)?token_embedding\.weight)$")
_LAYER = re.compile(r"(?:encoder\.layers|transformer\.resblocks)\.(\d+)\.")
_OLD_VAE = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""The VAE's attention as diffusers named it until 0.12."""


@dataclass(frozen=True)
class FilePart:
    """A part of a model in a file."""

    kind: str
    """``unet``, ``vae`` or ``text``."""
    prefix: str
    """What its keys in the file begin with."""
    keys: Mapping[str, str]
    """Key in the original layout, without a prefix -> key in the file."""
    shapes: Mapping[str, Shape]
    """By the same keys."""

    @property
    def layers(self) -> int:
        """Of a text encoder."""
        return 1 + max((int(found[1]) for key in self.shapes if (found := _LAYER.search(key))), default=-1)


def parts(shapes: Mapping[str, Shape]) -> list[FilePart]:
    """The UNet, the VAE and the text encoders that a file with these keys holds."""
    found = [_unet(shapes), _vae(shapes), *_texts(shapes)]
    return [part for part in found if part]


def under(kind: str, prefix: str, shapes: Mapping[str, Shape], roots: str = "") -> FilePart:
    """The part whose keys begin with ``prefix`` and then match ``roots``, in the original layout."""
    wanted = re.compile(re.escape(prefix) + (roots if not prefix else ""))
    return _part(kind, prefix, {key[len(prefix) :]: key for key in shapes if wanted.match(key)}, shapes)


def _part(kind: str, prefix: str, keys: Mapping[str, str], shapes: Mapping[str, Shape]) -> FilePart:
    return FilePart(kind, prefix, keys, {ours: shapes[theirs] for ours, theirs in keys.items()})


def _unet(shapes: Mapping[str, Shape]) -> FilePart | None:
    for prefix in _UNET_PREFIXES:
        if any(prefix + key in shapes for key in _UNET):
            return under("unet", prefix, shapes, _UNET_ROOTS)
        if prefix + _DIFFUSERS_UNET in shapes:
            return _diffusers_unet(under("unet", prefix, shapes, _DIFFUSERS_UNET_ROOTS), shapes)
    return None


def _vae(shapes: Mapping[str, Shape]) -> FilePart | None:
    for prefix in _VAE_PREFIXES:
        if prefix + _VAE in shapes:
            return under("vae", prefix, shapes, _VAE_ROOTS)
        if prefix + _DIFFUSERS_VAE in shapes:
            return _diffusers_vae(under("vae", prefix, shapes, _VAE_ROOTS), shapes)
    return None


def _diffusers_unet(plain: FilePart, shapes: Mapping[str, Shape]) -> FilePart:
    names = plain.keys
    resnets = len({name.split(".")[3] for name in names if name.startswith("down_blocks.0.resnets.")})
    levels = len({name.split(".")[1] for name in names if name.startswith("up_blocks.")})
    attention = [any(name.startswith(f"up_blocks.{at}.attentions.") for name in names) for at in range(levels)]
    keys = _translated(plain, lambda name: ldm_keys.unet_source(name, resnets, attention).key)
    return _part("unet", plain.prefix, keys, shapes)


def _diffusers_vae(plain: FilePart, shapes: Mapping[str, Shape]) -> FilePart:
    levels = len({name.split(".")[2] for name in plain.keys if name.startswith("encoder.down_blocks.")})
    return _part("vae", plain.prefix, _translated(plain, lambda name: _vae_key(name, levels)), shapes)


def _vae_key(name: str, levels: int) -> str:
    for old, new in _OLD_VAE.items():
        name = name.replace(f"attentions.0.{old}.", f"attentions.0.{new}.")
    return ldm_keys.vae_source(name, levels).key


def _texts(shapes: Mapping[str, Shape]) -> Iterator[FilePart]:
    for key in shapes:
        if found := _EMBEDDING.match(key):
            yield under("text", found[1], shapes, _TEXT_ROOTS)


def _translated(plain: FilePart, original: Callable[[str], str]) -> dict[str, str]:
    """Original key -> key in the file; keys without an original one are left out."""
    keys = {}
    for name, key in plain.keys.items():
        try:
            keys[original(name)] = key
        except (KeyError, ValueError, IndexError):
            continue  # not one of the model's weights: reported as a tensor that is not read
    return keys
