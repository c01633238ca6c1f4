"""A base model from one ``.safetensors`` file in the original trainers' layout, whose configurations ship with the
studio.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from lora_studio.families.family import Family
from lora_studio.families.layout import Shape, Source
from lora_studio.families.registry import of_file
from lora_studio.models import distilled, prediction
from lora_studio.models.base import Base
from lora_studio.models.parts import build, title
from lora_studio.models.prediction import NoiseMarks
from lora_studio.models.tokenizer import Tokenizer
from lora_studio.models.weights import Weights, fill, lacks


def read(
    path: Path, name: str, device: torch.device, dtype: torch.dtype, encoders_on: torch.device
) -> tuple[Base, NoiseMarks]:
    """As ``lora_studio.models.load``, with what the file says of its noise process, which is yet to be settled.

    Weights averaged over training (``model_ema.…``) are passed over, as every program that draws with such a file does.

    Raises:
        ModelError: the file is damaged, no whole model, or of a family that is not supported.
    """
    with Weights([path]) as weights:
        family = of_file(weights.shapes, path)
        marks = prediction.of_file(family, weights)
        fast = distilled.in_file(name, weights.shapes, weights.metadata)
        denoiser, vae, *encoders = (
            _part(family, part, weights, device if part == family.denoiser else encoders_on, dtype)
            for part in (family.denoiser, "vae", *family.encoders)
        )
    tokenizers = [Tokenizer.shipped(pad) for pad in family.pads]
    text_encoders = dict(zip(family.encoders, encoders, strict=True))
    base = Base(
        family,
        name,
        path,
        denoiser,
        vae,
        text_encoders,
        tokenizers,
        family.process(marks.schedule),
        device,
        dtype,
        distilled=fast,
    )
    return base, marks


def _part(family: Family, part: str, weights: Weights, device: torch.device, dtype: torch.dtype) -> nn.Module:
    prefix, shapes = family.prefixes[part], shapes_of(family, part, weights)
    try:
        config = family.fit(part, shapes)
    except (KeyError, IndexError, StopIteration):
        raise lacks(weights, f"{'some weights of ' if shapes else ''}{title(part)}") from None

    def sources(name: str) -> list[Source]:
        return [Source(prefix + one.key, one.change) for one in family.sources(part, name, config, shapes)]

    model = build(family, part, config, weights.paths[0])
    fill(model, weights, sources, torch.float32 if part == "vae" else dtype, device, title(part))
    return model


def shapes_of(family: Family, part: str, weights: Weights) -> dict[str, Shape]:
    """The shapes of the weights of ``part``, by their keys without its prefix."""
    prefix = family.prefixes[part]
    return {key.removeprefix(prefix): shape for key, shape in weights.shapes.items() if key.startswith(prefix)}
