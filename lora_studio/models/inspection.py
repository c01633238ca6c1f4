"""What can be said of a base model without reading its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from lora_studio.events import Warned
from lora_studio.families.family import Family, part_title
from lora_studio.models import folder, pieces
from lora_studio.models.load import locate
from lora_studio.models.parts import build, read_json
from lora_studio.models.pieces import Given, Piece
from lora_studio.models.weights import Weights, find


def notices(base: str, vae: str = "", text_encoders: Sequence[str] = ()) -> list[Warned]:
    """What the user should know of the tensors of the model that ``base`` names; the arguments are those of
    ``lora_studio.models.load``.

    Raises:
        ModelError: there is no such model, a part is missing or damaged, or its family is not supported.
    """
    given = Given.of(vae, text_encoders)
    path, _ = locate(base)
    return list(_of_file(path, given) if path.is_file() else _of_folder(path, given))


def _of_file(path: Path, given: Given) -> Iterator[Warned]:
    found = pieces.gather(path, given)
    yield from _of_pieces(found.family, found.parts, path)


def _of_folder(path: Path, given: Given) -> Iterator[Warned]:
    family = folder.family_of(path)
    more = pieces.complete(family, given)
    for part in (family.denoiser, "vae", *family.encoders):
        if part not in more:
            weights = Weights(folder.weight_files(path / part))
            names = build(family, part, read_json(path / part / "config.json"), path / part).state_dict()
            find(names, folder.sources(part), weights, part_title(part))
            yield from pieces.unread(weights)
    yield from _of_pieces(family, more, path)


def _of_pieces(family: Family, parts: dict[str, Piece], path: Path) -> Iterator[Warned]:
    for part, piece in parts.items():
        config = pieces.config(family, part, piece)
        names = build(family, part, config, path).state_dict()
        find(names, partial(pieces.sources, family, part, config, piece), piece.weights, part_title(part))
    yield from pieces.notices(family, parts)
