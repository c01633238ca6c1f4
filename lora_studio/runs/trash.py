"""The system's trash, from which what was deleted can be restored."""

from __future__ import annotations

from pathlib import Path

from lora_studio.errors import MachineError


def put(path: Path) -> None:
    """Moves a file to the system's trash.

    Raises:
        MachineError: the system has no trash for this disk; the file is still there.
    """
    from send2trash import send2trash

    try:
        send2trash(path)
    except OSError as error:
        raise MachineError(
            f"{path.name} cannot be moved to the trash: {error.strerror or error}.",
            where=path,
            do="Delete it in your file manager.",
        ) from error
