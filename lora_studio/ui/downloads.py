"""Files to download, in the one folder that the page serves."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from lora_studio import files
from lora_studio.ui import images, words


def offered(file: Path, outputs: Path) -> Path:
    """``file`` in the folder that the page serves: the same bytes under a second name, or a copy where a disk has no
    such thing.
    """
    target = _place(file, outputs)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, target)
        except FileExistsError:
            return target  # another tab was quicker
        except OSError:
            files.copy(file, target)
    return target


def _place(file: Path, outputs: Path) -> Path:
    stat = file.stat()
    key = hashlib.sha256(f"{file.resolve()}|{stat.st_mtime_ns}|{stat.st_size}".encode()).hexdigest()[:32]
    return images.folder(outputs) / "adapters" / key / file.name


def withdraw(file: Path, outputs: Path) -> None:
    """Offers ``file`` no longer, so that its bytes are free once it is deleted."""
    files.unlink(_place(file, outputs))


def link(file: Path, outputs: Path, label: str) -> str:
    """A link that downloads ``file``, as HTML."""
    return f'<a class="download" download="{words.text(file.name)}" href="{words.text(images.address(offered(file, outputs)))}">{words.text(label)}</a>'
