"""Masks of pictures: what is white in one is learned, what is black is not, and grey lies in between.

A mask lies beside its picture, as OneTrainer names it (``a-masklabel.png`` for ``a.png``; this studio writes such) or
as other programs do (``a_mask.png``, ``a-mask.png``), or under its picture's name in a folder ``masks`` or ``mask``
there, as sd-scripts' ``conditioning_data_dir``. ``a-condlabel.png`` is the input of another kind of model, which this
studio does not train.
"""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from lora_studio.dataset import pictures
from lora_studio.dataset.pictures import Facts
from lora_studio.dataset.problems import Problem, grouped
from lora_studio.language import tr

MASK, CONDITION = "-masklabel", "-condlabel"
FOLDERS = ("masks", "mask")
"""Names of folders whose pictures are masks of the pictures beside the folder."""
CONDITIONS = frozenset(("conditioning", "conditions"))
"""Names of folders of inputs of other models."""
BLACK = (0, 0, 0)
"""What a mask's transparent pixels are laid on."""
LOOSE = ("_mask", "-mask")
"""Endings of a mask where its picture lies beside it; elsewhere the file is a picture like others."""
_DARK = 8
"""Grey levels below it look black, as those of a mask of 0 and 1 that was meant to be of 0 and 255."""
_ORDER = (MASK, *LOOSE, *FOLDERS)
"""Which of several masks of a picture counts: the first."""
_SHAPE = 0.02
"""Largest difference between the shapes of a mask and its picture, as a share."""


def find(names: Iterable[str]) -> dict[str, list[str]]:
    """The masks among ``names``, pictures and masks relative to their dataset's folder, by ``key`` of the pictures that
    they are of; of several the one that counts comes first.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    shown: set[str] = set()
    keyed = ((key(name), name) for name in names)
    for own, name in sorted(keyed, key=lambda pair: len(pair[0])):  # pictures before what may be their masks
        kind = _kind(name)
        picture = _picture(own, name, kind, shown) if kind else ""
        if kind and (picture in shown or kind not in LOOSE):
            found.setdefault(picture, []).append((_ORDER.index(kind), name))
        elif pictures.promises(name):
            shown.add(own)
    return {picture: [name for _, name in sorted(masks)] for picture, masks in found.items()}


def among(names: Iterable[str]) -> set[str]:
    """The masks among ``names``, pictures and masks relative to their dataset's folder."""
    return {name for several in find(names).values() for name in several}


def key(name: str) -> str:
    """A picture's name without its ending, its accents composed: file systems differ in that."""
    return unicodedata.normalize("NFC", os.path.splitext(name)[0])


def beside(picture: str) -> str:
    """The name of the mask that this studio writes for the picture of that name."""
    return f"{os.path.splitext(picture)[0]}{MASK}.png"


def may_be(name: str) -> bool:
    """Whether the file is a mask by its name alone, or would be with a picture beside it."""
    return bool(_kind(name))


def is_condition(name: str) -> bool:
    """Whether the file is the input of another kind of model by its name."""
    return _ending(name, (CONDITION,)) != ""


def _kind(name: str) -> str:
    """Which of ``_ORDER`` makes a mask of the file; empty for none."""
    folder = posixpath.basename(posixpath.dirname(name)).casefold()
    return folder if folder in FOLDERS else _ending(name, (MASK, *LOOSE))


def _ending(name: str, endings: Iterable[str]) -> str:
    """The one of ``endings`` that the stem of a picture's file has, and not alone."""
    stem, suffix = os.path.splitext(os.path.basename(name).lower())
    if suffix not in pictures.SUFFIXES:
        return ""
    return next((one for one in endings if stem.endswith(one) and stem != one), "")


def _picture(own: str, name: str, kind: str, shown: Collection[str]) -> str:
    """``key`` of the picture that a mask of that kind is of: ``own`` is that of the mask itself, ``shown`` are those of
    pictures.
    """
    if kind not in FOLDERS:
        return own[: len(own) - len(kind)]
    folder, stem = posixpath.split(own)
    exact = posixpath.join(posixpath.dirname(folder), stem)
    ending = "" if exact in shown else _ending(name, (MASK, *LOOSE))  # which some programs add there, too
    return exact[: len(exact) - len(ending)]


def black(path: Path) -> bool:
    """Whether nothing of the mask is white or a grey that can be seen; what is transparent counts as black.

    Raises:
        DatasetError: as ``pictures.open_picture``.
    """
    return (
        pictures.open_picture(path, background=BLACK).convert("L").point(lambda level: level >= _DARK).getbbox() is None
    )


def pair(
    masks: Mapping[str, list[str]], facts: Mapping[str, Facts], bad: Collection[str], aside: Collection[str] = ()
) -> tuple[dict[str, str], list[Problem]]:
    """The masks of pictures, both by name, and what is wrong with some.

    Args:
        masks: as ``find`` gave them.
        facts: of all pictures and masks that can be read.
        bad: names of those that cannot be read.
        aside: pictures that are not trained on, whatever their masks are.
    """
    all_masks = {name for several in masks.values() for name in several}
    chosen = {name: masks[key(name)][0] for name in facts if name not in all_masks and key(name) in masks}
    unread = [name for name, mask in chosen.items() if mask in bad]
    other = [name for name, mask in chosen.items() if mask in facts and not _same_shape(facts[name], facts[mask])]
    used = {name: mask for name, mask in chosen.items() if name not in {*unread, *other}}
    owned = {key(name) for name in (*facts, *bad) if name not in all_masks}
    problems = grouped(
        "warning",
        "black mask",
        dict.fromkeys(mask for name, mask in used.items() if name not in aside and facts[mask].black),
        "mask is all black, so nothing of its picture is learned",
        "masks are all black, so nothing of their pictures is learned",
        tr("Paint white what is to be learned, or take the picture and its mask out of the folder."),
    )
    problems += grouped(
        "left out",
        "mask shape",
        dict.fromkeys(chosen[name] for name in other),
        "mask has another shape than its picture and is not used",
        "masks have other shapes than their pictures and are not used",
        tr("Save each mask at the size of its picture."),
    )
    problems += grouped(
        "left out",
        "orphan mask",
        [mask for picture, several in masks.items() if picture not in owned for mask in several],
        "mask has no picture",
        "masks have no picture",
        tr(
            "Name each like its picture, a{ending}.png or {folder}/a.png for a.png, or delete it.",
            ending=MASK,
            folder=FOLDERS[0],
        ),
    )
    problems += grouped(
        "warning",
        "unreadable mask",
        unread,
        "picture's mask cannot be read, so all of it is learned",
        "pictures' masks cannot be read, so all of them is learned",
        tr("Save the masks again as PNG."),
    )
    return used, problems + _several(masks, chosen)


def _several(masks: Mapping[str, list[str]], chosen: Mapping[str, str]) -> list[Problem]:
    several = {name: mask for name, mask in chosen.items() if len(masks[key(name)]) > 1}
    return grouped(
        "warning",
        "several masks",
        several,
        "picture has several masks, of which the one in brackets is used",
        "pictures have several masks, of which those in brackets are used",
        tr(
            "Delete the outdated ones. A {first} counts before a {second} or {third}, and these before a folder of "
            "masks.",
            first=MASK,
            second=LOOSE[0],
            third=LOOSE[1],
        ),
        several,
    )


def conditions(names: Iterable[str]) -> list[Problem]:
    """What is said of the inputs of other models among ``names``."""
    return grouped(
        "left out",
        "conditioning",
        filter(is_condition, names),
        "conditioning picture is not used",
        "conditioning pictures are not used",
        tr("They belong to models that are controlled by pictures. Delete them, or leave them where they are."),
    )


def _same_shape(one: Facts, other: Facts) -> bool:
    return abs(one.width * other.height / (one.height * other.width) - 1) <= _SHAPE
