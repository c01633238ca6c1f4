"""Files to download, in the only folder that the page serves."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from lora_studio import files
from lora_studio.ui import images, words


def offered(file: Path, outputs: Path) -> Path:
    """``file`` in the folder that the page serves, as a hard link, or as a copy if the disk has no hard links."""
    target = _place(file, outputs)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, target)
        except FileExistsError:
            return target  # another tab was faster
        except OSError:
            files.copy(file, target)
    return target


def _place(file: Path, outputs: Path) -> Path:
    stat = file.stat()
    key = hashlib.sha256(f"{file.resolve()}|{stat.st_mtime_ns}|{stat.st_size}".encode()).hexdigest()[:32]
    return images.folder(outputs) / "adapters" / key / file.name


def withdraw(file: Path, outputs: Path) -> None:
    """Removes the download of ``file``, so that its space is free once it is deleted."""
    files.unlink(_place(file, outputs))


def link(file: Path, outputs: Path, label: str, name: str = "") -> str:
    """A link that downloads ``file``, as HTML; under another ``name``, if one is given."""
    address = words.text(images.address(offered(file, outputs)))
    return f'<a class="download" download="{words.text(name or file.name)}" href="{address}">{words.text(label)}</a>'
