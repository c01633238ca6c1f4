"""What a scan makes of the choices that an artist made (``preparation``)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lora_studio.dataset.captions import composed
from lora_studio.dataset.items import Picture
from lora_studio.dataset.preparation import MIN_CROP, Preparation
from lora_studio.dataset.problems import Problem, grouped
from lora_studio.language import ntr, tr


class Choices:
    """What the artist chose, by names with composed accents: file systems differ in that."""

    def __init__(self, root: Path, chosen: Preparation):
        self._root, self._chosen = root, chosen
        self._crops = {composed(name): crop for name, crop in chosen.crops.items()}
        self._too_small: list[str] = []
        self._left_out = {composed(name) for name in chosen.left_out}
        self.folders = {composed(name): options for name, options in chosen.folders.items()}

    def applied(self, name: str, picture: Picture) -> Picture:
        """``picture`` with its crop, unless that is too small."""
        crop = self._crops.get(composed(name))
        if crop and not crop.covers(picture.width, picture.height):
            self._too_small.append(name)
            return picture
        return replace(picture, crop=crop) if crop else picture

    def problems(self, names: Iterable[str], aside: Iterable[str]) -> list[Problem]:
        """What became of the choices. ``names`` are all files of the scan, ``aside`` the pictures left out."""
        aside = list(aside)
        found = grouped(
            "left out",
            "left out",
            aside,
            "picture is left out, as you chose",
            "pictures are left out, as you chose",
            ntr(
                len(aside),
                "Take it in again on the page, in Pictures, to train on it.",
                "Take them in again on the page, in Pictures, to train on them.",
            ),
        )
        found += grouped(
            "warning",
            "small crop",
            self._too_small,
            "crop is smaller than {least} pixels and is not used",
            "crops are smaller than {least} pixels and are not used",
            tr("Draw it again: the picture was replaced by a smaller one."),
            least=MIN_CROP,
        )
        present = {composed(name) for name in names}
        return found + grouped(
            "warning",
            "missing",
            [name for name in gone(self._root, self._chosen) if composed(name) not in present],
            "picture or folder that you prepared is no longer there",
            "pictures and folders that you prepared are no longer there",
            tr(
                "Put it back under its name, or forget what was chosen: on the page, in Pictures, or with python3 "
                "app.py pictures DIR --tidy."
            ),
        )

    def is_left_out(self, name: str) -> bool:
        """Whether the picture of this name is not to be trained on."""
        return composed(name) in self._left_out


def gone(root: Path, chosen: Preparation) -> list[str]:
    """The pictures and folders of choices that are not in ``root``, sorted."""
    named = sorted({*chosen.crops, *chosen.left_out, *chosen.folders})
    return [name for name in named if not os.path.exists(root / name) and not _spelled_otherwise(root / name)]


def _spelled_otherwise(path: Path) -> bool:
    """Whether a file is there whose name has its accents composed in another way."""
    try:
        return any(composed(name) == composed(path.name) for name in os.listdir(path.parent))
    except OSError:
        return False
