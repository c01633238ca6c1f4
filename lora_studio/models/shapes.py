"""A base model's shapes, from its configurations and file headers alone: no weight is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_studio.families.family import Family
from lora_studio.families.layout import Shape
from lora_studio.families.shapes import Shapes, Text
from lora_studio.models import folder, pieces, prediction
from lora_studio.models.load import locate
from lora_studio.models.parts import read_json
from lora_studio.models.pieces import Given
from lora_studio.models.weights import Weights


def read(base: str, vae: str = "", text_encoders: Sequence[str] = ()) -> Shapes:
    """The shapes of the model that ``base`` names, with the parts that are given, as in ``lora_studio.models.load``.

    Raises:
        ModelError: there is no such model, a part is missing or damaged, or its family is not supported.
    """
    given = Given.of(vae, text_encoders)
    path, _ = locate(base)
    return _of_file(path, given) if path.is_file() else _of_folder(path, given)


def _of_folder(path: Path, given: Given) -> Shapes:
    family = folder.family_of(path)
    more = pieces.complete(family, given)
    configs, counts = {}, {}
    for part in (family.denoiser, "vae", *family.encoders):
        if part in more:
            configs[part], counts[part] = pieces.config(family, part, more[part]), _count(more[part].part.shapes)
        else:
            configs[part] = read_json(path / part / "config.json")
            counts[part] = _count(Weights(folder.weight_files(path / part)).shapes)
    return _shapes(family, configs, counts, family.latent_side(configs[family.denoiser]))


def _of_file(path: Path, given: Given) -> Shapes:
    found = pieces.gather(path, given)
    family = found.family
    configs = {part: found.config(part) for part in family.prefixes}
    predicts = prediction.of_file(family, found.main).prediction
    side = family.native_size(predicts, family.latent_side(configs[family.denoiser]))
    return _shapes(family, configs, {part: _count(found.parts[part].part.shapes) for part in configs}, side)


def _shapes(family: Family, configs: dict[str, dict[str, Any]], counts: dict[str, int], latent_side: int) -> Shapes:
    denoiser, vae = configs[family.denoiser], configs["vae"]
    text = tuple(
        Text(config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"])
        for config in (configs[part] for part in family.encoders)
    )
    return Shapes(family.name, latent_side * family.latent_scale(vae), denoiser, vae, counts, text)


def _count(shapes: Mapping[str, Shape]) -> int:
    return sum(map(math.prod, shapes.values()))
