"""A base model's shapes, from its configurations and file headers alone: no weight is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_studio.families.family import Family
from lora_studio.families.layout import Shape
from lora_studio.families.registry import of_file
from lora_studio.families.shapes import Shapes, Text
from lora_studio.models import folder, prediction, single
from lora_studio.models.load import locate
from lora_studio.models.parts import read_json
from lora_studio.models.weights import Weights


def read(base: str) -> Shapes:
    """The shapes of the model that ``base`` names, as in ``lora_studio.models.load``.

    Raises:
        ModelError: there is no such model, a part is missing or damaged, or its family is not supported.
    """
    path, _ = locate(base)
    return _of_file(path) if path.is_file() else _of_folder(path)


def _of_folder(path: Path) -> Shapes:
    family = folder.family_of(path)
    parts = (family.denoiser, "vae", *family.encoders)
    configs = {part: read_json(path / part / "config.json") for part in parts}
    counts = {part: _count(Weights(folder.weight_files(path / part)).shapes) for part in parts}
    return _shapes(family, configs, counts, family.latent_side(configs[family.denoiser]))


def _of_file(path: Path) -> Shapes:
    weights = Weights([path])
    family = of_file(weights.shapes, path)
    shapes = {part: single.shapes_of(family, part, weights) for part in family.prefixes}
    configs = {part: family.fit(part, shapes[part]) for part in shapes}
    predicts = prediction.of_file(family, weights).prediction
    side = family.native_size(predicts, family.latent_side(configs[family.denoiser]))
    return _shapes(family, configs, {part: _count(shapes[part]) for part in shapes}, side)


def _shapes(family: Family, configs: dict[str, dict[str, Any]], counts: dict[str, int], latent_side: int) -> Shapes:
    denoiser, vae = configs[family.denoiser], configs["vae"]
    text = tuple(
        Text(config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"])
        for config in (configs[part] for part in family.encoders)
    )
    return Shapes(family.name, latent_side * family.latent_scale(vae), denoiser, vae, counts, text)


def _count(shapes: Mapping[str, Shape]) -> int:
    return sum(map(math.prod, shapes.values()))
