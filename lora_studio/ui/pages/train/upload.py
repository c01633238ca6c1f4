"""Pictures that were dropped on the page, one by one or as a ZIP, become a folder that stays:
``outputs/pictures/<name>``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lora_studio import files
from lora_studio.dataset import archive
from lora_studio.errors import DatasetError, StudioError
from lora_studio.runs import safe_name

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".gif")
TYPES = [*PICTURES, ".txt", ".caption", ".jsonl", ".zip"]
MOST_FILES = 5_000


def keep(uploaded: list[Path], outputs: Path) -> Path:
    """Copies ``uploaded`` into a new folder and unpacks ZIPs into it. Names are made safe; an existing folder is never
    touched.

    Raises:
        DatasetError, MachineError: a ZIP is damaged, too large, leads out of its folder or holds no picture, there are
        too many files,
            or the disk is full; nothing is left behind.
    """
    if len(uploaded) > MOST_FILES:
        raise DatasetError(
            f"{len(uploaded):,} files at once are too many; {MOST_FILES:,} are the most.",
            do="Paste the path of their folder instead.",
        )
    target = _claim(outputs / "pictures", safe_name(uploaded[0].stem if len(uploaded) == 1 else "pictures"))
    try:
        for path in uploaded:
            if path.suffix.lower() == ".zip":
                _unpack(path, target)
            else:
                shutil.copyfile(path, files.free(target / safe_name(path.name)))
    except OSError as error:
        shutil.rmtree(target)
        raise DatasetError(
            f"The upload could not be kept: {error}",
            where=uploaded[0].name,
            do="Check the file and the free space, then try again.",
        ) from error
    except StudioError:
        shutil.rmtree(target)
        raise
    return target


def _claim(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def _unpack(path: Path, target: Path) -> None:
    """The pictures and captions of a ZIP, into ``target``: kohya's ``N_name`` folders keep their name, deeper ones do
    not matter.
    """
    whole = target / ".unpacked"
    archive.unpack(path, whole)
    wanted = [found for found in sorted(whole.rglob("*")) if found.is_file() and found.suffix.lower() in TYPES[:-1]]
    if not wanted:
        raise DatasetError(
            "The ZIP holds no pictures.", where=path.name, do="Pack PNG, JPEG or WebP files, and captions as .txt."
        )
    for found in wanted:
        inside = [safe_name(part) for part in found.relative_to(whole).parts[:-1]]
        folder = target.joinpath(*inside[-1:])
        folder.mkdir(exist_ok=True)
        os.replace(found, files.free(folder / safe_name(found.name)))
    shutil.rmtree(whole)
