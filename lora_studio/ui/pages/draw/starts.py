"""Pictures to start from: copies of them in folders named by their hashes, so that a recipe finds its own again."""

from __future__ import annotations

from pathlib import Path

from lora_studio import files, runs
from lora_studio.errors import SettingsError
from lora_studio.language import tr


def keep(path: Path, outputs: Path) -> Path:
    """A copy of the picture at ``path``, whose own file may be an upload that is deleted some day.

    Raises:
        MachineError: it cannot be read, or the disk refuses it.
    """
    try:
        digest = files.sha256(path)
        if known := find(digest, outputs):
            return known
        target = _folder(outputs) / digest / f"{files.safe_name(path.stem)}{path.suffix.lower()}"
        files.make_folder(target.parent)
        files.copy(path, target)
    except OSError as error:
        raise files.refusal(error, tr("The picture to start from cannot be kept"), path) from error
    return target


def find(sha256: str, outputs: Path) -> Path | None:
    """The picture with that hash, if it was started from before."""
    if not sha256.isalnum():
        return None
    found = (_folder(outputs) / sha256).glob("*.*")
    return next((path for path in found if path.suffix != files.PARTIAL), None)


def checked(path: str, outputs: Path) -> Path:
    """The picture at ``path``, if it is one of the studio's: a browser or a page elsewhere may name any file.

    Raises:
        SettingsError: it is not, or it is gone.
    """
    found, pictures = Path(path).resolve(), runs.pictures_folder(outputs).resolve()
    if found.is_file() and (found.parent.parent == _folder(outputs).resolve() or found.parent == pictures):
        return found
    raise SettingsError(
        tr("The picture to start from is gone."), where=tr("Start from a picture"), do=tr("Choose it again, or none.")
    )


def _folder(outputs: Path) -> Path:
    return runs.cache_folder(outputs) / "starts"
