"""The pictures that were drawn: the image files in ``outputs/pictures`` itself, whose folders are datasets.

    outputs/pictures/a-cat-7.png       a picture, with its recipe in its header
    outputs/pictures/.starred.json     the names of those with a star
    outputs/pictures/.deleted/         what was deleted last, until something else is: undo takes it back

What a picture shows is not read here: two thousand of them cost one listing of a folder.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lora_studio import files, runs
from lora_studio.errors import MachineError, SettingsError
from lora_studio.language import tr
from lora_studio.runs import trash

ENDINGS = (".png", ".webp", ".jpg", ".jpeg")
_changing = threading.Lock()
"""Two tabs must not take the same free name, or lose each other's stars."""


class Drawn(NamedTuple):
    """One picture of the gallery. ``modified`` is in nanoseconds since the epoch."""

    name: str
    path: Path
    modified: int
    starred: bool


def listed(outputs: Path = runs.OUTPUTS) -> list[Drawn]:
    """All pictures, the latest first.

    Raises:
        MachineError: the folder cannot be read.
    """
    folder, starred = runs.pictures_folder(outputs), _starred(outputs)
    try:
        with os.scandir(folder) as entries:
            found = [_drawn(one, starred) for one in entries if _is_picture(one)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise files.refusal(error, tr("The pictures cannot be listed"), folder) from error
    return sorted(found, key=lambda one: (-one.modified, one.name))


def _is_picture(entry: os.DirEntry[str]) -> bool:
    shown = entry.name.lower().endswith(ENDINGS) and not entry.name.startswith(".")
    return shown and files.is_text(entry.name) and entry.is_file()


def _drawn(entry: os.DirEntry[str], starred: set[str]) -> Drawn:
    return Drawn(entry.name, Path(entry.path), entry.stat().st_mtime_ns, entry.name in starred)


def find(name: str, outputs: Path = runs.OUTPUTS) -> Path | None:
    """The picture of that name; None if there is none, so that a made-up path finds nothing."""
    if name != os.path.basename(name) or not name.lower().endswith(ENDINGS) or name.startswith("."):
        return None
    path = runs.pictures_folder(outputs) / name
    return path if path.is_file() else None


def found(name: str, outputs: Path = runs.OUTPUTS) -> Path:
    """The picture of that name.

    Raises:
        SettingsError: there is none.
    """
    if path := find(name, outputs):
        return path
    raise SettingsError(tr("This picture is gone."), where=name, do=tr("Choose another: it was moved or deleted."))


def keep(content: bytes, name: str, outputs: Path = runs.OUTPUTS) -> Path:
    """Saves a picture under ``name``, with a number if that is taken.

    Raises:
        MachineError: the disk refuses it.
    """
    folder = runs.pictures_folder(outputs)
    with _changing:
        try:
            path = files.free(folder / name)
            files.write(path, content)
        except OSError as error:
            raise files.refusal(error, tr("The picture cannot be saved"), folder) from error
    return path


def star(name: str, starred: bool, outputs: Path = runs.OUTPUTS) -> None:
    """Gives a picture a star, or takes it away.

    Raises:
        SettingsError: there is no such picture.
        MachineError: the disk refuses it.
    """
    found(name, outputs)
    with _changing:
        names = _starred(outputs)
        (names.add if starred else names.discard)(name)
        _write_stars(names, outputs)


def delete(names: Sequence[str], outputs: Path = runs.OUTPUTS) -> None:
    """Moves pictures to the system's trash. ``restore`` takes those of the last call back.

    Raises:
        SettingsError: one is gone already.
        MachineError: the system has no trash for this disk; those before it are in the trash.
    """
    paths = [found(name, outputs) for name in dict.fromkeys(names)]
    with _changing:
        forget(outputs)
        for path in paths:
            aside = _set_aside(path, outputs)
            try:
                trash.put(path)
            except MachineError:
                files.unlink(aside)
                raise


def _set_aside(path: Path, outputs: Path) -> Path:
    """Keeps a picture for undo: as a hard link, or as a copy if the disk has no hard links."""
    target = _deleted(outputs) / path.name
    try:
        files.make_folder(target.parent)
        try:
            os.link(path, target)
        except OSError:
            shutil.copy2(path, target)
    except OSError as error:
        raise files.refusal(error, tr("The picture cannot be kept for undo, so it was not deleted"), path) from error
    return target


def restore(outputs: Path = runs.OUTPUTS) -> list[str]:
    """Takes back what ``delete`` deleted last, and returns the names. A picture whose name was taken meanwhile gets a
    number.

    Raises:
        MachineError: the disk refuses it.
    """
    folder, back = runs.pictures_folder(outputs), []
    with _changing:
        for path in sorted(_deleted(outputs).glob("*")):
            try:
                target = files.free(folder / path.name)
                files.patiently(lambda path=path, target=target: os.replace(path, target))
            except OSError as error:
                raise files.refusal(error, tr("The picture cannot be restored"), folder) from error
            back.append(target.name)
    return back


def can_restore(outputs: Path = runs.OUTPUTS) -> int:
    """How many pictures ``restore`` would take back."""
    return len(list(_deleted(outputs).glob("*")))


def forget(outputs: Path = runs.OUTPUTS) -> None:
    """Gives up what ``restore`` could take back; the system's trash still has it."""
    shutil.rmtree(_deleted(outputs), ignore_errors=True)


def _deleted(outputs: Path) -> Path:
    return runs.pictures_folder(outputs) / ".deleted"


def _stars(outputs: Path) -> Path:
    return runs.pictures_folder(outputs) / ".starred.json"


def _starred(outputs: Path) -> set[str]:
    try:
        names = json.loads(_stars(outputs).read_bytes())
    except (OSError, ValueError, RecursionError):  # no picture has a star yet, or the file is damaged
        return set()
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def _write_stars(names: Iterable[str], outputs: Path) -> None:
    try:
        files.write(_stars(outputs), json.dumps(sorted(names), indent=1))
    except OSError as error:
        raise files.refusal(error, tr("The star cannot be saved"), _stars(outputs)) from error
