"""What can be said of a base model without reading its weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lora_studio.events import Warned
from lora_studio.families.family import part_title
from lora_studio.models import folder, pieces
from lora_studio.models.load import locate
from lora_studio.models.parts import build, read_json
from lora_studio.models.weights import Weights, find


def notices(base: str) -> list[Warned]:
    """What the user should know of the tensors of the model that ``base`` names, as in ``lora_studio.models.load``.

    Raises:
        ModelError: there is no such model, a part is missing or damaged, or its family is not supported.
    """
    path, _ = locate(base)
    return list(_of_file(path) if path.is_file() else _of_folder(path))


def _of_file(path: Path) -> Iterator[Warned]:
    found = pieces.gather(path)
    for part, piece in found.parts.items():
        config = found.config(part)
        names = build(found.family, part, config, path).state_dict()
        find(names, partial(pieces.sources, found.family, part, config, piece), piece.weights, part_title(part))
    yield from pieces.notices(found.family, found.parts)


def _of_folder(path: Path) -> Iterator[Warned]:
    family = folder.family_of(path)
    for part in (family.denoiser, "vae", *family.encoders):
        weights = Weights(folder.weight_files(path / part))
        names = build(family, part, read_json(path / part / "config.json"), path / part).state_dict()
        find(names, folder.sources(part), weights, part_title(part))
        yield from pieces.unread(weights)
