"""Pictures that were dropped on the page, one by one or as a ZIP, become a dataset's folder that stays."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import NamedTuple

from lora_studio import files, runs
from lora_studio.dataset import intake
from lora_studio.dataset.problems import Problem
from lora_studio.errors import DatasetError

MOST_FILES = 5_000


class Kept(NamedTuple):
    """The new folder, and what of the upload was left out."""

    folder: Path
    left_out: list[Problem]


def keep(uploaded: list[Path], outputs: Path) -> Kept:
    """Copies ``uploaded`` into a new folder of ``outputs`` and unpacks ZIPs into it.

    Raises:
        DatasetError: there are too many files or no picture, or a ZIP is damaged, too large, or leads out of its
            folder; nothing is left behind, here and below.
        MachineError: a file cannot be read, or the disk refuses it.
    """
    if len(uploaded) > MOST_FILES:
        raise DatasetError(
            f"{len(uploaded):,} files at once are too many; the limit is {MOST_FILES:,}.",
            do="Paste the path of their folder instead.",
        )
    folder = None
    try:
        folder = runs.new_pictures(intake.suggest_name(uploaded, time.strftime("upload-%Y-%m-%d")), outputs)
        return Kept(folder, intake.fill(folder, uploaded))
    except Exception as error:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise files.refusal(error, "The upload could not be kept", runs.pictures_folder(outputs)) from error
        raise
