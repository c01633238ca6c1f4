"""The families that the studio knows: a new one is one file beside this, and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_studio.errors import ModelError
from lora_studio.families.family import Family
from lora_studio.families.sdxl import StableDiffusionXL
from lora_studio.families.stable_diffusion import StableDiffusion1, StableDiffusion2, Starter

FAMILIES: tuple[Family, ...] = (
    StableDiffusion1(),
    StableDiffusion2(),
    StableDiffusionXL(),
    Starter(),
)

_FOREIGN_KEYS = {
    "joint_blocks.": "Stable Diffusion 3",
    "double_blocks.": "Flux",
    "single_transformer_blocks.": "Flux",
    "double_layers.": "AuraFlow",
    "down_blocks.0.motion_modules.": "AnimateDiff",
    "control_model.": "a ControlNet",
    "conditioner.embedders.0.model.": "the SDXL refiner",
}
"""A part of a key -> what the file is. Longer or rarer marks first."""
_FOREIGN_CLASSES = {
    "StableDiffusion3": "Stable Diffusion 3",
    "Flux": "Flux",
    "Inpaint": "an inpainting model",
    "Pix2Pix": "an image-editing model",
    "Upscale": "an upscaler",
    "StableCascade": "Stable Cascade",
    "PixArt": "PixArt",
    "AuraFlow": "AuraFlow",
    "Wan": "Wan",
    "Qwen": "Qwen Image",
}
_CHANNELS = {9: "an inpainting model", 8: "an image-editing model", 7: "an upscaler", 5: "a depth model"}
_CONV_IN = "model.diffusion_model.input_blocks.0.0.weight"
_TAKES = "The studio trains Stable Diffusion 1.x, 2.x and XL text-to-image models."


def of_folder(index: Mapping[str, Any], unet: Mapping[str, Any] | None, where: Path) -> Family:
    """The family of a diffusers folder, from its ``model_index.json`` and its UNet's configuration (None where there is
    none).

    Raises:
        ModelError: it is none of ours; the message says what it is, where that can be told.
    """
    kind = str(index.get("_class_name", ""))
    for mark, title in _FOREIGN_CLASSES.items():
        if mark in kind:
            raise _foreign(title, where)
    if unet is None:
        raise ModelError(f"{where.name} has no unet folder.", where=where, do=_TAKES)
    if title := _CHANNELS.get(unet.get("in_channels", 4)):
        raise _foreign(title, where)
    for family in FAMILIES:
        if family.owns_folder(unet):
            return family
    raise _foreign(kind or "a model of another shape", where)


def of_file(shapes: Mapping[str, tuple[int, ...]], where: Path) -> Family:
    """The family of a single file, from its keys and shapes.

    Raises:
        ModelError: it is no whole model, or none of ours; the message says what it is, where that can be told.
    """
    if title := _CHANNELS.get(shapes[_CONV_IN][1] if len(shapes.get(_CONV_IN, ())) == 4 else 4):
        raise _foreign(title, where)
    for family in FAMILIES:
        if family.owns_file(shapes):
            return family
    if any(".lora_" in key or key.startswith("lora_") or ".hada_" in key or ".lokr_" in key for key in shapes):
        raise ModelError(
            f"{where.name} is an adapter (LoRA), not a base model.",
            where=where,
            do="Choose the checkpoint that the adapter was made for, and load the adapter on top of it.",
        )
    for mark, title in _FOREIGN_KEYS.items():
        if any(mark in key for key in shapes):
            raise _foreign(title, where)
    raise ModelError(
        f"{where.name} holds {_contents(shapes)}.",
        where=where,
        do=f"{_TAKES} A single file must hold the whole checkpoint.",
    )


def _foreign(title: str, where: Path) -> ModelError:
    return ModelError(f"{where.name} is {title}, which the studio cannot train.", where=where, do=_TAKES)


def _contents(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What a file without a whole model seems to be."""
    marks = {
        "down_blocks.0.resnets": "only a UNet or VAE in diffusers' layout; choose the folder above it instead",
        "decoder.conv_in.weight": "only a VAE",
        "text_model.encoder.layers": "only a text encoder",
        "model.diffusion_model.": "only a UNet",
        "emb_params": "a textual inversion, not a base model",
        "string_to_param": "a textual inversion, not a base model",
    }
    for mark, title in marks.items():
        if any(mark in key for key in shapes):
            return title
    return "no model that the studio knows"
