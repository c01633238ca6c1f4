"""``shortcut``: the studio among the system's programs."""

from __future__ import annotations

from pathlib import Path

from lora_studio import bootstrap, files
from lora_studio.bootstrap import shortcut as shortcuts
from lora_studio.cli.options import AsJson, tell


def shortcut(as_json: AsJson = False) -> None:
    """Put the studio into the start menu, or among the applications."""
    try:
        path = shortcuts.install(bootstrap.ROOT, Path.home())
    except OSError as error:
        raise files.refusal(error, "The shortcut cannot be written", shortcuts.place(Path.home())) from error
    tell({"shortcut": path}, [f"{shortcuts.NAME} is now among your programs: {path}"], as_json)
