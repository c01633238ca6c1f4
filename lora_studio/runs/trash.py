"""The system's trash, from which the user can restore what was deleted; undo is in ``undo``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from lora_studio.errors import MachineError
from lora_studio.language import tr

_DELETED, _INFO = "files", "info"
"""The folders of a trash that follows the freedesktop.org specification: what was deleted, and where that had been."""


def put(path: Path) -> None:
    """Moves a file or a folder to the system's trash.

    Raises:
        MachineError: the system has no trash for this disk; the file is still there.
    """
    from send2trash import send2trash

    try:
        send2trash(path)
    except OSError as error:
        raise MachineError(
            tr("{name} cannot be moved to the trash: {reason}.", name=path.name, reason=error.strerror or error),
            where=path,
            do=tr("Delete it in your file manager."),
        ) from error


def place(path: Path) -> Path | None:
    """Where in the trash what had been at ``path`` is now, the latest of several. None where the system does not tell:
    on Windows and macOS its own trash restores it.
    """
    if sys.platform in ("win32", "darwin"):
        return None
    path = Path(os.path.abspath(path))
    found = [info for can in _cans(path) for info in _infos(can) if _origin(info, can) == path]
    newest = max(found, key=lambda info: info.stat().st_mtime_ns, default=None)
    return newest.parent.parent / _DELETED / newest.name.removesuffix(".trashinfo") if newest else None


def _cans(path: Path) -> Iterator[Path]:
    """The trashes that may hold what had been at ``path``: the user's own, and those of the disk."""
    yield Path(os.path.expanduser(os.environ.get("XDG_DATA_HOME") or "~/.local/share")) / "Trash"
    top = path.parent
    while not os.path.ismount(top):
        top = top.parent
    yield top / ".Trash" / str(os.getuid())
    yield top / f".Trash-{os.getuid()}"


def _infos(can: Path) -> list[Path]:
    try:
        return [Path(one.path) for one in os.scandir(can / _INFO) if one.name.endswith(".trashinfo")]
    except OSError:  # there is no such trash
        return []


def _origin(info: Path, can: Path) -> Path | None:
    """Where what it tells of had been. A trash names the files of its own disk from there."""
    try:
        told = next(line for line in info.read_text().splitlines() if line.startswith("Path="))
    except (OSError, ValueError, StopIteration):
        return None
    top = can.parent if can.name != str(os.getuid()) else can.parent.parent
    return Path(os.path.abspath(top / unquote(told.removeprefix("Path="))))
