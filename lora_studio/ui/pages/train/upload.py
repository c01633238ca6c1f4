"""Pictures that were dropped on the page, one by one or as a zip, become a folder that stays: ``outputs/pictures/<name>``."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from lora_studio.errors import DatasetError
from lora_studio.runs import safe_name

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".gif")
TYPES = [*PICTURES, ".txt", ".caption", ".jsonl", ".zip"]

_MOST_FILES, _MOST_BYTES, _MOST_RATIO = 5_000, 8 * 10**9, 200
"""What a zip may hold, unpacked; and how much larger than itself a file in it may be, beyond a first megabyte."""


def keep(uploaded: list[Path], outputs: Path) -> Path:
    """Copies ``uploaded`` into a new folder and unpacks zips into it. Names are made safe; an existing folder is never touched.

    Raises:
        DatasetError: a zip is damaged, too large or leads out of its folder, or the disk is full; nothing is left behind.
    """
    target = _claim(outputs / "pictures", safe_name(uploaded[0].stem if len(uploaded) == 1 else "pictures"))
    try:
        for path in uploaded:
            if path.suffix.lower() == ".zip":
                _unpack(path, target)
            else:
                shutil.copyfile(path, target / safe_name(path.name))
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        shutil.rmtree(target)
        raise DatasetError(f"The upload could not be kept: {error}", where=uploaded[0].name, do="Check the file and the free space, then try again.") from error
    except DatasetError:
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
    with zipfile.ZipFile(path) as archive:
        wanted = list(_wanted(archive.infolist()))
        _require_bounded(wanted, path.name)
        for entry in wanted:
            *folders, name = [safe_name(part) for part in PurePosixPath(entry.filename.replace("\\", "/")).parts]
            folder = target.joinpath(*folders[-1:])  # kohya's N_name folders keep their name, deeper ones do not matter
            folder.mkdir(exist_ok=True)
            with archive.open(entry) as source, open(_free(folder / name), "xb") as copy:
                _copy(source, copy, entry.file_size, path.name)


def _wanted(entries: Iterable[zipfile.ZipInfo]) -> Iterator[zipfile.ZipInfo]:
    """Pictures and captions; no folders, no links, none of the extras that a Mac packs."""
    for entry in entries:
        parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
        link = (entry.external_attr >> 16) & 0o170000 == 0o120000
        if not parts or entry.is_dir() or link or "__MACOSX" in parts or parts[-1].startswith("."):
            continue
        if PurePosixPath(parts[-1]).suffix.lower() in TYPES[:-1]:
            yield entry


def _require_bounded(entries: list[zipfile.ZipInfo], name: str) -> None:
    for entry in entries:
        parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
        if ".." in parts or PurePosixPath(entry.filename).is_absolute() or ":" in parts[0]:
            raise DatasetError(f"The zip holds {entry.filename!r}, which leads out of it.", where=name, do="Pack the pictures themselves, without their path.")
        if entry.file_size > 10**6 and entry.file_size > _MOST_RATIO * max(entry.compress_size, 1):
            what = f"{entry.filename} would unpack to {entry.file_size / 1e6:.0f} MB, which no picture does."
            raise DatasetError(what, where=name, do="Pack the pictures anew.")
    if len(entries) > _MOST_FILES or sum(entry.file_size for entry in entries) > _MOST_BYTES:
        what = f"The zip holds more than {_MOST_FILES:,} files or {_MOST_BYTES // 10**9} GB."
        raise DatasetError(what, where=name, do="Unpack it yourself and paste the folder's path.")
    if not entries:
        raise DatasetError("The zip holds no pictures.", where=name, do="Pack PNG, JPEG or WebP files, and captions as .txt.")


def _free(path: Path) -> Path:
    """``path``, or with a number where a file of that name was unpacked already."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def _copy(source, copy, size: int, name: str) -> None:
    """Copies no more than the directory of the zip promised."""
    left = size
    while piece := source.read(1 << 20):
        left -= len(piece)
        if left < 0:
            raise DatasetError("The zip is larger than it says.", where=name, do="Pack the pictures anew.")
        copy.write(piece)
