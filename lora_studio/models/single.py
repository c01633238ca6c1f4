"""A base model from one ``.safetensors`` file in the original trainers' layout, or from its parts in several, whose
configurations ship with the studio.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_studio.adapters import metadata
from lora_studio.families.family import Family, part_title
from lora_studio.models import distilled, prediction
from lora_studio.models import pieces as assembly
from lora_studio.models.base import Base
from lora_studio.models.parts import build
from lora_studio.models.pieces import Given, Piece
from lora_studio.models.prediction import NoiseMarks
from lora_studio.models.weights import fill
from lora_studio.texts.tokenizer import Tokenizer


def read(
    path: Path, name: str, device: torch.device, dtype: torch.dtype, encoders_on: torch.device, given: Given = Given()
) -> tuple[Base, NoiseMarks]:
    """As ``lora_studio.models.load``, with what the file says of its noise process, which is yet to be settled.

    Raises:
        ModelError: the file is damaged, no whole model, or of a family that is not supported.
    """
    pieces = assembly.gather(path, given)
    family = pieces.family
    marks = prediction.of_file(family, pieces.main)
    fast = distilled.in_file(name, pieces.main.shapes, pieces.main.metadata)
    denoiser, vae, *encoders = (
        part(family, each, pieces.parts[each], device if each == family.denoiser else encoders_on, dtype)
        for each in (family.denoiser, "vae", *family.encoders)
    )
    tokenizers = [Tokenizer.shipped(pad) for pad in family.pads]
    base = Base(
        family,
        name,
        path,
        denoiser,
        vae,
        dict(zip(family.encoders, encoders, strict=True)),
        tokenizers,
        family.process(marks.schedule),
        device,
        dtype,
        distilled=fast,
        given=given,
        declared_clip_skip=metadata.clip_skip(pieces.main.metadata),
    )
    base.notices += assembly.notices(family, pieces.parts)
    return base, marks


def autoencoder(path: Path, device: torch.device, given: Given) -> nn.Module:
    """The VAE of the model in the file ``path`` alone, frozen.

    Raises:
        ModelError: the file is damaged, no whole model, or of a family that is not supported.
    """
    pieces = assembly.gather(path, given)
    return part(pieces.family, "vae", pieces.parts["vae"], device, torch.float32)


def part(
    family: Family,
    name: str,
    piece: Piece,
    device: torch.device,
    dtype: torch.dtype,
    changes: dict[str, Any] | None = None,
) -> nn.Module:
    """The part ``name`` of a model, frozen, on ``device``.

    Args:
        changes: what its configuration has that neither the shipped one nor the shapes tell.

    Raises:
        ModelError: weights are missing, of a wrong shape, or not finite in ``dtype``.
    """
    config = assembly.config(family, name, piece) | (changes or {})
    model = build(family, name, config, piece.weights.paths[0])
    with piece.weights:
        fill(
            model,
            piece.weights,
            partial(assembly.sources, family, name, config, piece),
            torch.float32 if name == "vae" else dtype,
            device,
            part_title(name),
        )
    return model
