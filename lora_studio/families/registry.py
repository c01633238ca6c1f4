"""The families that the studio knows: a new one is one file beside this, and one line here. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from lora_studio.errors import ModelError
from lora_studio.families.family import Family
from lora_studio.families.layout import Shape
from lora_studio.families.sdxl import StableDiffusionXL
from lora_studio.families.stable_diffusion import FirstStarter, StableDiffusion1, StableDiffusion2, Starter
from lora_studio.language import both, either, tr

FAMILIES: tuple[Family, ...] = (
    StableDiffusion1(),
    StableDiffusion2(),
    StableDiffusionXL(),
    Starter(),
    FirstStarter(),
)
UNKNOWN = "unknown"
"""The name of what is none of them."""

_FOREIGN_KEYS = {
    "joint_blocks.": "Stable Diffusion 3",
    "double_blocks.": "Flux",
    "single_transformer_blocks.": "Flux",
    "double_layers.": "AuraFlow",
    "down_blocks.0.motion_modules.": "AnimateDiff",
    "control_model.": tr("a ControlNet"),
    "conditioner.embedders.0.model.": tr("the SDXL refiner"),
}
"""A part of a key -> what the file is. Longer or rarer marks first."""
_FOREIGN_CLASSES = {
    "StableDiffusion3": "Stable Diffusion 3",
    "Flux": "Flux",
    "Pix2Pix": tr("an image-editing model"),
    "Upscale": tr("an upscaler"),
    "StableCascade": "Stable Cascade",
    "PixArt": "PixArt",
    "AuraFlow": "AuraFlow",
    "Wan": "Wan",
    "Qwen": "Qwen Image",
}
_CHANNELS = {
    8: tr("an image-editing model (InstructPix2Pix)"),
    7: tr("an upscaler"),
    5: tr("a depth model"),
}
_CONV_IN = "input_blocks.0.0.weight"


def named(name: str) -> Family | None:
    """The family of that name; None where it is ``UNKNOWN``."""
    return next((family for family in FAMILIES if family.name == name), None)


def title_of(name: str) -> str:
    """What people call the family of that name."""
    family = named(name)
    return family.title if family else tr("an unknown model")


def heading_of(name: str) -> str:
    """The same by itself: without an article, and with a capital."""
    family = named(name)
    return family.heading or family.title if family else tr("An unknown model")


def titles() -> list[str]:
    """What people call the families; not those that another one took the place of."""
    return [family.title for family in FAMILIES if not family.successor]


def apart(one: str, other: str) -> bool:
    """Whether one of the two families took the other's place: the shapes of their layers tell nothing."""
    return any(
        family.name == old and family.successor == new
        for family in FAMILIES
        for old, new in ((one, other), (other, one))
    )


def denoiser_folders() -> list[str]:
    """The folders that a denoiser can be in, in diffusers' layout."""
    return list(dict.fromkeys(family.denoiser for family in FAMILIES))


def components() -> list[str]:
    """The parts that an adapter can change."""
    return list(dict.fromkeys(part for family in FAMILIES for part in family.components))


def kohya_prefix(component: str, name: str) -> str:
    """How kohya's keys of ``component`` begin in an adapter for the family ``name``, or for the first one that has such
    a part.
    """
    for family in (named(name), *FAMILIES):
        if family and component in family.components:
            return family.kohya_prefix(component)
    raise KeyError(component)


def families_with(path: str, shape: Shape) -> frozenset[str]:
    """The names of the families that have a weight of ``shape`` at the canonical path ``path``."""
    return _families_with(path, shape, FAMILIES)


@lru_cache(maxsize=2**15)
def _families_with(path: str, shape: Shape, families: tuple[Family, ...]) -> frozenset[str]:
    return frozenset(family.name for family in families if family.fits(path, shape))


def claimed(version: str, architecture: str) -> str:
    """The name of the family that these entries of an adapter's header claim; empty where they claim none. Later
    families are the more particular ones.
    """
    return next((family.name for family in reversed(FAMILIES) if family.claimed_by(version, architecture)), "")


def owner(denoisers: Mapping[str, Mapping[str, Any]]) -> Family | None:
    """The family whose denoiser one of these configurations, by folder, is of; None where it is none's."""
    return next(
        (
            family
            for family in FAMILIES
            if family.denoiser in denoisers and family.owns_folder(denoisers[family.denoiser])
        ),
        None,
    )


def of_folder(index: Mapping[str, Any], denoisers: Mapping[str, Mapping[str, Any]], where: Path) -> Family:
    """The family of a diffusers folder.

    Args:
        index: its ``model_index.json``.
        denoisers: the configurations of its denoisers, by folder.

    Raises:
        ModelError: no family owns it; the message says what it is if that is known.
    """
    kind = str(index.get("_class_name", ""))
    for mark, title in _FOREIGN_CLASSES.items():
        if mark in kind:
            raise _foreign(title, where)
    if not denoisers:
        wanted = either(denoiser_folders())
        raise ModelError(
            tr("{name} has no {wanted} folder.", name=where.name, wanted=wanted),
            where=where,
            do=tr(
                "Choose the folder that holds {wanted} and model_index.json, or a .safetensors file. The studio trains "
                "{families}.",
                wanted=wanted,
                families=both(titles()),
            ),
        )
    if title := _CHANNELS.get(denoisers.get("unet", {}).get("in_channels", 4)):
        raise _foreign(title, where)
    if family := owner(denoisers):
        return family
    raise _foreign(kind or tr("a model of another shape"), where)


def of_denoiser(shapes: Mapping[str, Shape], where: Path, beside: Iterable[str] = ()) -> Family:
    """The family of a denoiser in a single file.

    Args:
        shapes: by its keys in the original layout, without a prefix.
        beside: all keys of the file, which may tell what it is otherwise.

    Raises:
        ModelError: no family owns it; the message says what it is if that is known.
    """
    if title := _CHANNELS.get(shapes[_CONV_IN][1] if len(shapes.get(_CONV_IN, ())) == 4 else 4):
        raise _foreign(title, where)
    for family in FAMILIES:
        if family.owns_denoiser(shapes):
            return family
    raise unknown(beside, where, tr("a UNet of no family that the studio knows"))


def unknown(keys: Iterable[str], where: Path, holds: str, do: str = "") -> ModelError:
    """The error for a file without a denoiser of a known family, by what its keys tell.

    Args:
        holds, do: what it holds, and what to do, if they tell nothing more.
    """
    keys = list(keys)
    if any(".lora_" in key or key.startswith("lora_") or ".hada_" in key or ".lokr_" in key for key in keys):
        return ModelError(
            tr("{name} is an adapter (LoRA), not a base model.", name=where.name),
            where=where,
            do=tr("Choose the checkpoint that the adapter was made for, and load the adapter on top of it."),
        )
    for mark, title in _FOREIGN_KEYS.items():
        if any(mark in key for key in keys):
            return _foreign(title, where)
    if any(mark in key for mark in ("emb_params", "string_to_param") for key in keys):
        holds = tr("a textual inversion, not a base model")
    return ModelError(tr("{name} holds {holds}.", name=where.name, holds=holds), where=where, do=do or _takes())


def _takes() -> str:
    return tr("The studio trains {families}.", families=both(titles()))


def _foreign(title: str, where: Path) -> ModelError:
    return ModelError(
        tr("{name} is {kind}, which the studio cannot train.", name=where.name, kind=title), where=where, do=_takes()
    )
