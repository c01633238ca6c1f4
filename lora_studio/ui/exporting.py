"""An adapter written for other programs, and proved to be read by them: what the Export page and scripts share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lora_studio.adapters.kinds import EMBEDDING
from lora_studio.jobs import command
from lora_studio.runs.library import Entry
from lora_studio.ui import images
from lora_studio.ui.pages.library import cards


class ExportedFile(NamedTuple):
    """The file, and what ``convert`` says of it."""

    path: Path
    result: dict[str, Any]


@contextmanager
def exported(entry: Entry, options: Sequence[str], format: str, name: str, outputs: Path) -> Generator[ExportedFile]:
    """The adapter in another format, until the end of the ``with``; a folder of peft's is zipped.

    Args:
        options: those of the command ``convert``, without the file to write.
        name: of the new file, without its ending.

    Raises:
        StudioError: it cannot be written so, or a program does not read it as it is.
    """
    parent = images.folder(outputs)
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=parent, ignore_cleanup_errors=True) as folder:
        path = Path(folder, name if format == "peft" else f"{name}.safetensors")
        result = command.run("convert", entry.path, *options, "-o", path)
        if format == "peft":
            path = Path(shutil.make_archive(str(path), "zip", folder, name))
        yield ExportedFile(path, result)


def usual_name(entry: Entry) -> str:
    """The file's name; an embedding's is its word, by which programs call it."""
    return entry.words[0] if entry.method == EMBEDDING.name and entry.words else cards.stem(entry)
