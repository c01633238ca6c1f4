"""A base model's shapes, from its configurations and file headers alone: no weight is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lora_studio.families.family import Family
from lora_studio.families.registry import of_file, of_folder
from lora_studio.models import folder, ldm_keys, single
from lora_studio.models.load import locate
from lora_studio.models.parts import read_json
from lora_studio.models.weights import Weights


class Text(NamedTuple):
    """A text encoder: ``width`` of its states, ``inner`` of its feed-forwards."""

    layers: int
    width: int
    inner: int


@dataclass(frozen=True)
class Shapes:
    """A base model as far as memory goes."""

    family: str
    resolution: int
    """The side in pixels that it was trained at."""
    unet: dict[str, Any]
    """Its configuration, as diffusers writes it."""
    vae: dict[str, Any]
    parameters: dict[str, int]
    """How many weights each part has: unet, vae, text_encoder, text_encoder_2."""
    text: tuple[Text, ...] = ()
    """Its text encoders."""

    @property
    def scale(self) -> int:
        """Pixels per latent pixel, along one side."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)


def read(base: str) -> Shapes:
    """The shapes of the model that ``base`` names, as in ``lora_studio.models.load``.

    Raises:
        ModelError: there is no such model, a part is missing or damaged, or its family is not supported.
    """
    path, _ = locate(base)
    return _of_file(path) if path.is_file() else _of_folder(path)


def _of_folder(path: Path) -> Shapes:
    index = read_json(path / "model_index.json") if (path / "model_index.json").is_file() else {}
    unet = read_json(path / "unet" / "config.json")
    family, vae = of_folder(index, unet, path), read_json(path / "vae" / "config.json")
    counts = {
        part: _count(Weights(folder.weight_files(path / part)).shapes) for part in ("unet", "vae", *family.encoders)
    }
    return _shapes(
        family,
        unet,
        vae,
        counts,
        unet["sample_size"],
        [read_json(path / part / "config.json") for part in family.encoders],
    )


def _of_file(path: Path) -> Shapes:
    weights = Weights([path])
    family = of_file(weights.shapes, path)
    parts = {
        part: {key.removeprefix(prefix): shape for key, shape in weights.shapes.items() if key.startswith(prefix)}
        for part, prefix in family.prefixes.items()
    }
    unet = ldm_keys.fit_unet(read_json(single.CONFIGS / family.configs / "unet.json"), parts["unet"])
    vae = ldm_keys.fit_vae(read_json(single.CONFIGS / family.configs / "vae.json"), parts["vae"])
    size = family.native_size(single.declared(weights), unet["sample_size"])
    text = [
        ldm_keys.fit_text(read_json(single.CONFIGS / family.configs / f"{part}.json"), single.plain(parts[part]))
        for part in family.encoders
    ]
    return _shapes(family, unet, vae, {part: _count(shapes) for part, shapes in parts.items()}, size, text)


def _shapes(
    family: Family,
    unet: dict[str, Any],
    vae: dict[str, Any],
    counts: dict[str, int],
    latent_size: int,
    text: list[dict[str, Any]],
) -> Shapes:
    encoders = tuple(
        Text(config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"]) for config in text
    )
    return Shapes(family.name, latent_size * 2 ** (len(vae["block_out_channels"]) - 1), unet, vae, counts, encoders)


def _count(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(map(math.prod, shapes.values()))
