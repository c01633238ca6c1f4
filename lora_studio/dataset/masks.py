"""Masks beside pictures, named as OneTrainer names them: ``a-masklabel.png`` for ``a.png``.

What is white in a mask is learned, what is black is not, and grey lies in between. ``a-condlabel.png`` is the input of
another kind of model, which this studio does not train.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path

from lora_studio.dataset import pictures
from lora_studio.dataset.pictures import Facts
from lora_studio.dataset.problems import Problem, grouped

MASK, CONDITION = "-masklabel", "-condlabel"
FOLDERS = frozenset(("mask", "masks", "conditioning", "conditions"))
"""Names of folders whose pictures are masks, as sd-scripts' ``conditioning_data_dir``, or inputs of other models."""
BLACK = (0, 0, 0)
"""What a mask's transparent pixels are laid on."""
_SHAPE = 0.02
"""Largest difference between the shapes of a mask and its picture, as a share."""


def stem(name: str) -> str:
    """The part of a name that a picture and its mask share."""
    found = os.path.splitext(name)[0]
    return found[: len(found) - len(label(name))]


def _key(name: str) -> str:
    """``stem`` with composed accents: file systems differ in that."""
    return unicodedata.normalize("NFC", stem(name))


def label(name: str) -> str:
    """``MASK`` or ``CONDITION`` if a file is one by its name, else empty."""
    found, suffix = os.path.splitext(name.lower())
    if suffix not in pictures.SUFFIXES:
        return ""
    return next((one for one in (MASK, CONDITION) if found.endswith(one) and found != one), "")


def black(path: Path) -> bool:
    """Whether nothing of the mask is white or grey; what is transparent counts as black.

    Raises:
        DatasetError: as ``pictures.open_picture``.
    """
    return pictures.open_picture(path, background=BLACK).convert("L").getbbox() is None


def pair(
    facts: Mapping[str, Facts], names: Collection[str], bad: Collection[str], aside: Collection[str] = ()
) -> tuple[dict[str, str], list[Problem]]:
    """The masks of pictures, both by name, and what was found.

    Args:
        facts: of all pictures and masks that can be read.
        names: all files of the dataset.
        bad: names of those that cannot be read.
        aside: pictures that are not trained on, whatever their masks are.
    """
    masks = {_key(name): name for name in facts if label(name) == MASK}
    mine = {name: masks[_key(name)] for name in facts if not label(name) and _key(name) in masks}
    used = {name: mask for name, mask in mine.items() if _same_shape(facts[name], facts[mask])}
    trained = {name: mask for name, mask in used.items() if name not in aside}
    owned = {_key(name) for name in (*facts, *bad) if not label(name)}
    problems = grouped(
        "warning",
        "mask",
        trained,
        "picture has a mask",
        "pictures have masks",
        "What is black in a mask is not learned, unless the setting masks is off.",
    )
    problems += grouped(
        "warning",
        "black mask",
        [mask for mask in trained.values() if facts[mask].black],
        "mask is all black, so nothing of its picture is learned",
        "masks are all black, so nothing of their pictures is learned",
        "Paint white what is to be learned, or take the picture and its mask out of the folder.",
    )
    problems += grouped(
        "left out",
        "mask shape",
        [mask for name, mask in mine.items() if name not in used],
        "mask has another shape than its picture and is not used",
        "masks have other shapes than their pictures and are not used",
        "Save each mask at the size of its picture.",
    )
    problems += grouped(
        "left out",
        "orphan mask",
        [mask for key, mask in masks.items() if key not in owned],
        "mask has no picture",
        "masks have no picture",
        f"Name each like its picture with {MASK}, as a{MASK}.png for a.png, or delete it.",
    )
    unread = {_key(name) for name in bad if label(name) == MASK}
    problems += grouped(
        "warning",
        "unreadable mask",
        [name for name in facts if not label(name) and _key(name) in unread - masks.keys()],
        "picture's mask cannot be read, so all of it is learned",
        "pictures' masks cannot be read, so all of them is learned",
        "Save the masks again as PNG.",
    )
    problems += grouped(
        "left out",
        "conditioning",
        [name for name in names if label(name) == CONDITION],
        "conditioning picture is not used",
        "conditioning pictures are not used",
        "They belong to models that are controlled by pictures. Delete them, or leave them where they are.",
    )
    return used, problems


def _same_shape(one: Facts, other: Facts) -> bool:
    return abs(one.width * other.height / (one.height * other.width) - 1) <= _SHAPE
