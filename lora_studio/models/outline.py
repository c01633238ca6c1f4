"""A base model without its weights: modules on torch's meta device, from its configurations and file headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from lora_studio.families.family import Family
from lora_studio.models import folder, pieces
from lora_studio.models.load import locate
from lora_studio.models.parts import build, read_json
from lora_studio.models.pieces import Given


class Outline(NamedTuple):
    """What an adapter can change, and the family that it belongs to."""

    family: Family
    models: dict[str, nn.Module]
    """The denoiser and the text encoders, by the first word of a canonical path."""


def read(base: str, vae: str = "", text_encoders: Sequence[str] = ()) -> Outline:
    """The outline of the model that ``base`` names, with the parts that are given, as in ``lora_studio.models.load``.

    Raises:
        ModelError: there is no such model, a part is missing or damaged, or its family is not supported.
    """
    given = Given.of(vae, text_encoders)
    path, _ = locate(base)
    family, configs = _of_file(path, given) if path.is_file() else _of_folder(path, given)
    return Outline(family, {part: build(family, part, config, path) for part, config in configs.items()})


def _of_file(path: Path, given: Given) -> tuple[Family, dict[str, dict[str, Any]]]:
    found = pieces.gather(path, given)
    return found.family, {part: found.config(part) for part in (found.family.denoiser, *found.family.encoders)}


def _of_folder(path: Path, given: Given) -> tuple[Family, dict[str, dict[str, Any]]]:
    family = folder.family_of(path)
    more = pieces.complete(family, given)
    return family, {
        part: pieces.config(family, part, more[part]) if part in more else read_json(path / part / "config.json")
        for part in (family.denoiser, *family.encoders)
    }
