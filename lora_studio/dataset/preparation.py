"""What an artist chose about a folder of pictures, beside them in ``.lora_studio/preparation.json``: crops, pictures
left out, and options of folders. The pictures themselves stay as they are.

Names are relative to the dataset's folder, with forward slashes; "" is the dataset's folder itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config

from lora_studio import files
from lora_studio.dataset.problems import Problem
from lora_studio.errors import DatasetError
from lora_studio.language import fault, tr

FOLDER = ".lora_studio"
"""What the studio writes beside pictures, apart from captions and masks. No scan reads pictures there."""
NAME = f"{FOLDER}/preparation.json"
VERSION = 1
MAX_BYTES = 32 * 1024**2
"""A longer file is not read: choices about 20,000 pictures take 3 MB."""
MIN_CROP = 8
"""Fewest pixels of a crop's side."""
MAX_REPEATS = 1000
MAX_WEIGHT = 100.0
NOISE_LEVELS = 1000
"""Steps of the noise process that ``FolderOptions.timesteps`` counts in, whatever the base model."""


class Crop(NamedTuple):
    """The part of a picture to train on, as shares of its width and height after the EXIF rotation:
    0 ≤ left < right ≤ 1 and 0 ≤ top < bottom ≤ 1.
    """

    left: float
    top: float
    right: float
    bottom: float

    @property
    def valid(self) -> bool:
        """Whether it is a part of a picture at all; false for NaN."""
        return 0 <= self.left < self.right <= 1 and 0 <= self.top < self.bottom <= 1

    def covers(self, width: int, height: int) -> bool:
        """Whether it is large enough to train on, of a picture of ``width`` × ``height`` pixels."""
        return min((self.right - self.left) * width, (self.bottom - self.top) * height) >= MIN_CROP


def check_crop(name: str, crop: Crop, width: int, height: int) -> None:
    """Raises DatasetError for a crop that cannot be trained on, of the picture ``name`` of these pixels."""
    if not crop.valid or not crop.covers(width, height):
        raise DatasetError(
            tr("The crop is smaller than {least} × {least} pixels, or no part of the picture.", least=MIN_CROP),
            where=name,
            do=tr("Choose a larger part."),
        )


def _ordered(levels: tuple[int, int]) -> tuple[int, int]:
    if not 0 <= levels[0] < levels[1] <= NOISE_LEVELS:
        raise ValueError(tr("noise levels run from 0 to {most}, the first below the second", most=NOISE_LEVELS))
    return levels


def _part(crop: Crop) -> Crop:
    if not crop.valid:
        raise ValueError(tr("a crop has 0 ≤ left < right ≤ 1 and 0 ≤ top < bottom ≤ 1"))
    return crop


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True)
class FolderOptions:
    """What holds for the pictures of one folder.

    Attributes:
        repeats: how often each comes up in an epoch, 1 to ``MAX_REPEATS``; None for what the folder's name says.
        weight: what its loss is multiplied by, 0 to ``MAX_WEIGHT``.
        prefix: in front of every line of a caption, with a space between.
        caption: of pictures without one.
        timesteps: the noise levels that its pictures are trained at, from the first to before the second, of
            ``NOISE_LEVELS``; 0 is no noise. None for all.
        regularisation: its pictures are class pictures: they remind the model of what it knows and do not show the
            style.
    """

    repeats: Annotated[int, Field(ge=1, le=MAX_REPEATS)] | None = None
    weight: Annotated[float, Field(ge=0, le=MAX_WEIGHT, allow_inf_nan=False)] = 1.0
    prefix: str = ""
    caption: str = ""
    timesteps: Annotated[tuple[int, int], AfterValidator(_ordered)] | None = None
    regularisation: bool = False


@dataclass(frozen=True)
class Preparation:
    """All choices about one dataset; empty where nothing was chosen."""

    crops: Mapping[str, Crop] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    folders: Mapping[str, FolderOptions] = field(default_factory=dict)


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True)
class _File:
    """The file's content. It changes only together with ``VERSION``."""

    version: int
    crops: dict[str, Annotated[Crop, AfterValidator(_part)]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    folders: dict[str, FolderOptions] = field(default_factory=dict)


@with_config(ConfigDict(extra="ignore", strict=True))
@dataclass(frozen=True)
class _Head:
    """What a file of every version says."""

    version: Annotated[int, Field(ge=1)]


_FILE, _HEAD = TypeAdapter(_File), TypeAdapter(_Head)


def read(folder: Path) -> tuple[Preparation, list[Problem]]:
    """The choices about the dataset ``folder``. Where their file cannot be read, is damaged or of a later version,
    nothing counts as chosen, and a problem says so. It prevents training, which would take up the pictures that were
    left out, and whole ones for their crops.
    """
    try:
        return _load(folder), []
    except DatasetError as error:
        what = tr("{what} So your crops, pictures left out and folder options are not known.", what=error.what)
        return Preparation(), [Problem("blocking", "preparation", NAME, what, error.do)]


def write(folder: Path, preparation: Preparation) -> None:
    """Keeps ``preparation`` for the dataset ``folder``, in place of what was chosen before.

    Raises:
        DatasetError: a value is out of range, or the present file is damaged or of a later version: it stays.
        MachineError: the disk refuses.
    """
    path = folder / NAME
    _load(folder)
    try:
        files.write(path, encode(preparation, folder))
    except OSError as error:
        raise files.refusal(error, tr("The choices about the pictures cannot be kept"), path) from None


def encode(preparation: Preparation, folder: Path) -> str:
    """What the file of the dataset ``folder`` holds for ``preparation``.

    Raises:
        DatasetError: a value is out of range, or a text is not valid Unicode.
    """
    chosen = _File(
        VERSION,
        dict(sorted(preparation.crops.items())),
        sorted(preparation.left_out),
        dict(sorted(preparation.folders.items())),
    )
    try:
        data = _FILE.dump_json(chosen, indent=1, exclude_defaults=True).decode()
        _FILE.validate_json(data)
    except ValueError as error:
        said = _first(error) if isinstance(error, ValidationError) else tr("a text is not valid Unicode")
        what = tr("The choices about the pictures cannot be kept: {said}.", said=said)
        raise DatasetError(what, where=folder / NAME, do=tr("Correct that value.")) from None
    return data + "\n"


def _load(folder: Path) -> Preparation:
    """Raises DatasetError for a file that is damaged, of a later version, or cannot be read."""
    path = folder / NAME
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Preparation()
    except OSError as error:
        raise DatasetError(
            tr("{name} cannot be read: {reason}.", name=NAME, reason=files.reason(error)),
            where=path,
            do=tr("Check that you may read it."),
        ) from None
    if len(data) > MAX_BYTES:
        what = tr("{name} is damaged: it is longer than {most} MB.", name=NAME, most=MAX_BYTES // 1024**2)
        raise DatasetError(
            what, where=path, do=tr("Put back a copy of it, or move it away to start without its choices.")
        )
    try:
        version = _HEAD.validate_json(data).version
        if version > VERSION:
            raise DatasetError(
                tr(
                    "{name} was written by a later version of the studio (format {version}; this one reads {own}).",
                    name=NAME,
                    version=version,
                    own=VERSION,
                ),
                where=path,
                do=tr("Update the studio, or move it away to start without its choices."),
            )
        found = _FILE.validate_json(data)
    except ValidationError as error:
        what = tr("{name} is damaged: {fault}.", name=NAME, fault=_first(error))
        raise DatasetError(
            what, where=path, do=tr("Put back a copy of it, correct it, or move it away to start without its choices.")
        ) from None
    return Preparation(found.crops, frozenset(found.left_out), found.folders)


def _first(error: ValidationError) -> str:
    """The first fault: where in the file, and what pydantic says of it."""
    found = error.errors(include_url=False)[0]
    place, why = " → ".join(map(str, found["loc"])), fault(found)
    return tr("{place}: {why}", place=place, why=why) if place else why
