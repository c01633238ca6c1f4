"""Puts a finished file into another program's folder, and never over a different one unasked. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lora_studio import files
from lora_studio.errors import AdapterError
from lora_studio.language import tr


class Sent(NamedTuple):
    """Where a file now is."""

    path: Path
    already: bool
    """Whether the same file was there before."""


class NameTaken(AdapterError):
    """A different file has the name; ``details["free"]`` is a name that is free."""


def put(file: Path, folder: Path, name: str, *, replace: bool = False) -> Sent:
    """Copies ``file`` into ``folder`` as ``<name>.safetensors``, in one step: the program never sees half a file.

    Args:
        folder: it is never made: a network drive that is gone would be written to in its mount point.
        replace: put it in the place of a different file of that name.

    Raises:
        NameTaken: a different file has the name, and ``replace`` is not set.
        AdapterError: the folder is gone.
        MachineError: the disk refuses; what was there is untouched.
    """
    target = folder / f"{name}{file.suffix}"
    try:
        if not folder.is_dir():
            do = tr("Connect its disk or network drive, or name the folder anew.")
            raise AdapterError(tr("The folder {folder} is not there.", folder=folder), where=folder, do=do)
        if target.exists():
            if same(file, target):
                return Sent(target, True)
            if not replace:
                raise _taken(target)
        files.copy(file, target)
    except OSError as error:
        raise files.refusal(error, tr("{name} cannot be copied there", name=target.name), folder) from error
    return Sent(target, False)


def same(one: Path, other: Path) -> bool:
    """Whether two files have the same bytes.

    Raises:
        OSError: one cannot be read.
    """
    return one.stat().st_size == other.stat().st_size and files.sha256(one) == files.sha256(other)


def _taken(target: Path) -> NameTaken:
    free = files.free(target).stem
    what = tr("{name} is there already, and is a different file.", name=target.name)
    do = tr("Send it as {free}, or replace the one that is there.", free=free)
    return NameTaken(what, where=target.parent, do=do, details={"free": free, "taken": target.stem})
