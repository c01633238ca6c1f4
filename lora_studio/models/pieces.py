"""The parts of a base model, wherever they lie: all in one checkpoint, or the UNet, the VAE and the text encoders in
files of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lora_studio.errors import ModelError
from lora_studio.events import Warned
from lora_studio.families import contents, leftovers, registry
from lora_studio.families.contents import FilePart
from lora_studio.families.family import Family, part_title
from lora_studio.families.layout import Source
from lora_studio.families.weights import require_given
from lora_studio.language import both, few, ntr, tr
from lora_studio.models.weights import Weights, lacks

_GIVE = {"vae": "--vae", "text": "--text-encoders"}
"""How a part is given on the command line."""
_KINDS = {"unet": tr("a UNet"), "vae": tr("a VAE"), "text": tr("a text encoder")}


class Given(NamedTuple):
    """Files that complete a base model, or replace parts of it: the settings ``vae`` and ``text_encoders``."""

    vae: Path | None = None
    text_encoders: tuple[Path, ...] = ()

    @classmethod
    def of(cls, vae: str, text_encoders: Sequence[str]) -> Given:
        """The files of these paths.

        Raises:
            ModelError: there is no file at one of them.
        """
        require_given(vae, text_encoders)
        paths = [Path(os.path.expanduser(each)) for each in (vae, *text_encoders) if each]
        return cls(paths.pop(0) if vae else None, tuple(paths))

    @property
    def files(self) -> list[Path]:
        return [path for path in (self.vae, *self.text_encoders) if path]


@dataclass(frozen=True)
class Piece:
    """A part of a model: the file that holds it, and its keys there."""

    weights: Weights
    part: FilePart


@dataclass(frozen=True)
class Pieces:
    """All parts of a model of ``family``, by their folders in diffusers' layout."""

    family: Family
    main: Weights
    """The base model's own file."""
    parts: dict[str, Piece]

    def config(self, part: str) -> dict[str, Any]:
        """The configuration of ``part``: the shipped one with the widths that its shapes tell.

        Raises:
            ModelError: the file lacks a weight that tells one.
        """
        return config(self.family, part, self.parts[part])


def gather(path: Path, given: Given = Given()) -> Pieces:
    """The parts of the model in the file ``path``, completed and replaced by those that are given.

    Raises:
        ModelError: a file is damaged, holds something else, or parts are missing.
    """
    main = Weights([path])
    found = contents.parts(main.shapes)
    unet = next((part for part in found if part.kind == "unet"), None)
    if unet is None:
        raise registry.unknown(main.shapes, path, _described(found), _uses(found))
    family = registry.of_denoiser(unet.shapes, path, main.shapes)
    own = {family.denoiser: Piece(main, unet), **_own(family, main, found)}
    more = complete(family, given)
    for part in own.keys() & more.keys():
        main.used |= set(own[part].part.keys.values())
    pieces = own | more
    missing = [part for part in (family.denoiser, "vae", *family.encoders) if part not in pieces]
    if missing:
        raise _incomplete(family, path, list(own), missing)
    return Pieces(family, main, pieces)


def complete(family: Family, given: Given) -> dict[str, Piece]:
    """The parts for a model of ``family`` in the files that are given.

    Raises:
        ModelError: a file is damaged, or holds no such part.
    """
    pieces: dict[str, Piece] = {}
    for kind, where, paths in (
        ("vae", "vae", [given.vae] if given.vae else []),
        ("text", "text_encoders", given.text_encoders),
    ):
        for path in paths:
            weights = Weights([path])
            held = contents.parts(weights.shapes)
            for part in held:
                if part.kind != kind:  # a whole checkpoint may be given for its VAE
                    weights.used |= set(part.keys.values())
            wanted = [part for part in held if part.kind == kind]
            if not wanted:
                holds = _described(held)
                raise ModelError(
                    tr("{name} holds {holds}.", name=path.name, holds=holds),
                    where=where,
                    do=tr("Give a file with {part}.", part=_KINDS[kind]),
                )
            for part in wanted:
                place = _place(family, part, path)
                if place in pieces:
                    raise _twice(place, pieces[place].weights.paths[0], path)
                pieces[place] = Piece(weights, part)
    return pieces


def config(family: Family, part: str, piece: Piece) -> dict[str, Any]:
    """As ``Pieces.config``."""
    try:
        return family.fit(part, piece.part.shapes)
    except (KeyError, IndexError, StopIteration):
        title = part_title(part)
        missing = tr("some weights of {part}", part=title) if piece.part.shapes else title
        raise lacks(piece.weights, missing) from None


def sources(family: Family, part: str, config: dict[str, Any], piece: Piece, name: str) -> list[Source]:
    """Where the weight ``name`` of ``part`` can be in its file, the likeliest place first."""
    places = family.sources(part, name, config, piece.part.shapes)
    return [Source(piece.part.keys[one.key], one.change) for one in places if one.key in piece.part.keys]


def notices(family: Family, pieces: dict[str, Piece]) -> Iterator[Warned]:
    """What the user should know of tensors that no part was filled from, for each file."""
    for weights in dict.fromkeys(piece.weights for piece in pieces.values()):
        names = {key: key for key in weights.shapes}
        for part, piece in pieces.items():
            if piece.weights is weights:
                names |= {theirs: family.prefixes[part] + ours for ours, theirs in piece.part.keys.items()}
        yield from unread(weights, names)


def unread(weights: Weights, names: dict[str, str] | None = None) -> Iterator[Warned]:
    """A notice of the tensors of ``weights`` that were not used and may matter.

    Args:
        names: their keys in the original layout, by which they are known to be harmless or not.
    """
    names = names or {key: key for key in weights.shapes}
    if left := leftovers.unread(name for key, name in names.items() if key not in weights.used):
        yield Warned(
            what=ntr(
                len(left),
                "{name} holds a tensor that the studio does not use: {keys}.",
                "{name} holds {count} tensors that the studio does not use: {keys}.",
                name=weights.paths[0].name,
                keys=few(left, 3),
            ),
            where=str(weights.paths[0]),
            do=tr(
                "The model may draw otherwise here than in the program that it was made for. If so, choose another "
                "copy of it."
            ),
        )


def _own(family: Family, main: Weights, found: list[FilePart]) -> dict[str, Piece]:
    """The VAE and the text encoders of a checkpoint: under their family's prefixes, or else as they were told."""
    pieces = {part: Piece(main, contents.under("", prefix, main.shapes)) for part, prefix in family.prefixes.items()}
    pieces = {part: piece for part, piece in pieces.items() if part != family.denoiser and piece.part.keys}
    for part in found:
        if part.kind == "vae":
            pieces["vae"] = Piece(main, part)
        elif part.kind == "text" and (place := _encoder(family, part)):
            pieces[place] = Piece(main, part)
    return pieces


def _place(family: Family, part: FilePart, path: Path) -> str:
    """Which part of a model of ``family`` a given file is.

    Raises:
        ModelError: it has no such text encoder.
    """
    place = "vae" if part.kind == "vae" else _encoder(family, part)
    if place:
        return place
    wanted = both(str(family.config(each)["num_hidden_layers"]) for each in family.encoders)
    raise ModelError(
        tr(
            "{name} holds a text encoder of {layers} layers, but {family} has {wanted}.",
            name=path.name,
            layers=part.layers,
            family=family.title,
            wanted=wanted,
        ),
        where="text_encoders",
        do=ntr(
            len(family.encoders),
            "Give the text encoder of a model of this family.",
            "Give the text encoders of a model of this family.",
        ),
    )


def _twice(place: str, first: Path, second: Path) -> ModelError:
    return ModelError(
        tr(
            "{one} and {other} both hold {part}.",
            one=first.name,
            other=second.name,
            part=part_title(place),
        ),
        where="text_encoders",
        do=tr("Give one of them."),
    )


def _encoder(family: Family, part: FilePart) -> str:
    """Which text encoder it is, by its layers: files may have one more than is used. Empty if it is none."""
    for place in family.encoders:
        if part.layers - family.config(place)["num_hidden_layers"] in (0, 1):
            return place
    return ""


def _incomplete(family: Family, path: Path, own: list[str], missing: list[str]) -> ModelError:
    parts = {"name": path.name, "own": both(map(part_title, own)), "family": family.title}
    lacking = both(map(part_title, missing))
    if own == [family.denoiser]:
        what = tr("{name} holds {own} of {family} and nothing else.", **parts)
    else:
        what = tr("{name} holds {own} of {family}, but not {missing}.", **parts, missing=lacking)
    options = dict.fromkeys(_GIVE["vae" if part == "vae" else "text"] for part in missing)
    settings = dict.fromkeys("vae" if part == "vae" else "text_encoders" for part in missing)
    return ModelError(
        what,
        where="base",
        do=tr(
            "Give the files of {parts} as {settings} ({options} on the command line), or choose a checkpoint that "
            "holds the whole model.",
            parts=lacking,
            settings=both(settings),
            options=both(options),
        ),
    )


def _described(found: list[FilePart]) -> str:
    """What a file without a UNet holds."""
    kinds = list(dict.fromkeys(part.kind for part in found))
    if not kinds:
        return tr("no model that the studio knows")
    return tr("only {parts}", parts=both(_KINDS[kind] for kind in kinds))


def _uses(found: list[FilePart]) -> str:
    """What to do with a file that holds only parts beside the UNet; empty if it holds none."""
    if not found:
        return ""
    options = both(dict.fromkeys(_GIVE[part.kind] for part in found))
    return tr(
        "Choose a whole checkpoint or a UNet as base model; this file can be given as {options}.", options=options
    )
