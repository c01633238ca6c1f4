"""Writing files so that a crash or a power cut leaves the old content or the new, never a mixture."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

PARTIAL = ".partial"
"""Ending of what is still being written; nothing reads such a file or folder."""


def sync_folder(folder: Path) -> None:
    """Makes a rename inside ``folder`` durable. Windows has no such call, and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Brings what was written to ``path`` onto the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def replace(partial: Path, path: Path) -> None:
    """Gives the finished file or folder ``partial`` its name ``path``, durably."""
    if partial.is_file():
        sync_file(partial)
    os.replace(partial, path)
    sync_folder(path.parent)


def write(path: Path, content: bytes | str) -> None:
    """Writes ``content`` to ``path`` in one step: after a crash the old file or the new one is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    data = content.encode() if isinstance(content, str) else content
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free(path: Path) -> Path:
    """``path``, or with a number behind its stem where something of that name is there already."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_stem(f"{path.stem}-{number}")
    return found
