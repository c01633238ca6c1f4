"""A base model from whatever the user calls it by: the starter, a folder, a single file, a hub name. Never from the
network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models import AutoencoderKL
from torch import nn

from lora_studio import starter
from lora_studio.diffusion import registry as processes
from lora_studio.events import Warned
from lora_studio.families import weights
from lora_studio.families.family import Family
from lora_studio.language import tr
from lora_studio.models import distilled, folder, fused, single
from lora_studio.models import quantize as quantization
from lora_studio.models.base import Base
from lora_studio.models.distilled import Distilled
from lora_studio.models.fused import triton_support
from lora_studio.models.pieces import Given
from lora_studio.models.prediction import NoiseChoice, settle
from lora_studio.models.weights import read_header
from lora_studio.texts.tokenizer import Tokenizer


def load(
    base: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    prediction: str = "auto",
    quantize: str = "none",
    in_turn: bool = False,
    zero_snr: str = "auto",
    flow_shift: float = 0.0,
    vae: str = "",
    text_encoders: Sequence[str] = (),
    clip_skip: int = 0,
) -> Base:
    """The base model that ``base`` names, frozen, on ``device``.

    Args:
        base: ``starter``, a diffusers folder, a ``.safetensors`` file in the original layout, or the name of a model in
            the hub's local cache.
        dtype: of the UNet and the text encoders; the VAE is always float32.
        prediction: ``auto``, or a name of ``lora_studio.diffusion.registry``.
        quantize: ``none``; or ``nf4`` or ``int8``, which pack the UNet's transformers
            (``lora_studio.models.quantize``).
        in_turn: leave the VAE and the text encoders on the CPU until they are needed, one after the other
            (``Base.in_turn``).
        zero_snr, flow_shift, vae, text_encoders, clip_skip: as the settings of these names.

    Raises:
        ModelError: there is no such model, a part is missing or damaged, or its family is not supported.
        SettingsError: the studio cannot train what ``prediction`` names, or the family has no such clip skip.
        MachineError: it is to be quantized, and bitsandbytes does not work here.
    """
    choice = NoiseChoice(prediction, zero_snr, flow_shift)
    if prediction != "auto":
        processes.named(prediction)  # before gigabytes are read
    given = Given.of(vae, text_encoders)
    path, name = locate(base)
    read = single.read if path.is_file() else folder.read
    device = torch.device(device)
    cpu = torch.device("cpu")
    loaded, marks = read(
        path,
        name,
        device if quantize == "none" else cpu,
        dtype,
        cpu if in_turn or quantize != "none" else device,
        given,
    )
    loaded.in_turn, loaded.clip_skip = in_turn, loaded.family.clip_skip(clip_skip, loaded.declared_clip_skip)
    fused.enable(loaded.unet)
    for part in _channels_last(loaded, device):
        cast(Any, part).to(memory_format=torch.channels_last)  # torch declares no form without device or dtype
    if quantize != "none":
        quantization.quantize(loaded, quantize, device)
    if loaded.inpaints:
        loaded.notices.append(_inpaints(loaded.name))
    settle(loaded, marks, choice)
    return loaded


def autoencoder(
    base: str, device: torch.device | str = "cpu", vae: str = "", text_encoders: Sequence[str] = ()
) -> AutoencoderKL:
    """The VAE of the base model that ``base`` names, in float32, without its other parts; the arguments as for
    ``load``.

    Raises:
        ModelError: there is no such model, its VAE is missing or damaged, or its family is not supported.
    """
    path, _ = locate(base)
    read = single.autoencoder if path.is_file() else folder.autoencoder
    return cast(AutoencoderKL, read(path, torch.device(device), Given.of(vae, text_encoders)))


def distillation(base: str) -> Distilled | None:
    """What the header or the configurations of the model that ``base`` names tell of its distillation; no weight is
    read. Raises ModelError as ``load`` does.
    """
    path, name = locate(base)
    if path.is_dir():
        return distilled.in_folder(name, path)
    header = read_header(path)
    return distilled.in_file(name, header.shapes, header.metadata)


def tokenizers(base: str, family: Family) -> list[Tokenizer]:
    """The tokenizers of the model that ``base`` names, which is of ``family``. A single file holds none: CLIP's own.

    Raises:
        ModelError: as ``load``.
    """
    path, _ = locate(base)
    return folder.tokenizers(path, family) if path.is_dir() else [Tokenizer.shipped(pad) for pad in family.pads]


def _inpaints(name: str) -> Warned:
    return Warned(
        what=tr(
            "{name} is an inpainting model. It draws as the text-to-image model that it also is, with the whole "
            "picture masked. So it trains on pictures without a mask; in those with one it learns to paint what is "
            "white.",
            name=name,
        ),
        where="base",
        do=tr("Nothing needs to be done: the adapter fits the model without inpainting too."),
    )


def _channels_last(base: Base, device: torch.device) -> list[nn.Module]:
    """The parts whose convolutions are done sooner with channels last: on a CPU by a fifth; on a graphics card only
    where the norms between them keep that order.
    """
    if device.type == "cpu":
        return [base.unet, base.vae]
    return [base.unet] if device.type == "cuda" and triton_support.kernels() is not None else []


def locate(base: str) -> tuple[Path, str]:
    """The folder or file that ``base`` names, and its name for people.

    Raises:
        ModelError: it is none, and no model of that name is in the hub's local cache.
    """
    if base == "starter":
        return starter.MODEL, "starter"
    path = weights.located(base)
    if path.is_file():
        return path, path.stem
    return path, path.resolve().name if path == Path(base).expanduser() else base.rsplit("/", 1)[-1]
