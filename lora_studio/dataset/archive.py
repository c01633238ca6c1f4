"""Unpacks a ZIP of pictures and captions. Unsafe ones are refused as a whole, before or during unpacking."""

from __future__ import annotations

import re
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from lora_studio import files
from lora_studio.dataset import listing, preparation
from lora_studio.errors import DatasetError
from lora_studio.language import tr

MAX_FILES = 50_000
MAX_BYTES = 8 * 1024**3
MAX_RATIO = 200
"""Highest ratio of unpacked to packed bytes: text reaches about 20, a ZIP bomb more than 1000."""
_SMALL = 1024**2
"""Bytes. Smaller files may have any ratio: a plain white picture has a high one."""
_CHUNK = 1024**2
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Others are rare, and LZMA uses as much memory as the file asks for."""
_ENCRYPTED = 1
"""A bit of an entry's flags (APPNOTE.TXT, 4.4.4)."""
_HIDDEN = (".", "__MACOSX")
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    LookupError,
    ArithmeticError,
)
"""What zipfile raises for damaged files; most were found by fuzzing."""
_DISTRUST = tr("Do not use this file. Pack the pictures yourself.")
_LEADS_OUT = re.compile(r"(^|/)\.\.(/|$)|^/|^[A-Za-z]:")
_UNSTORABLE = re.compile(r"[\x00-\x1f:]|(^|/)\.(/|$)|//|[. ](/|$)")
"""Names that Windows does not take, or takes for another."""


def unpack(archive: Path, folder: Path) -> Path:
    """Unpacks ``archive`` into the new folder ``folder`` and returns the folder that holds its pictures: ``folder``, or
    the only folder in it.

    Hidden files, all but ``preparation.NAME``, and those that macOS adds are skipped. On any error nothing is left
    behind.

    Raises:
        DatasetError: it is no ZIP, is damaged or encrypted, contains a link or a name that leads out of the folder, or
            unpacks to too much; or ``folder`` exists already.
        MachineError: the disk is full or cannot be written.
    """
    if folder.exists():
        raise DatasetError(tr("The folder to unpack to exists already."), where=folder, do=tr("Choose another name."))
    partial = files.partial(folder)
    try:
        with zipfile.ZipFile(archive) as packed:
            wanted = _checked(packed, archive)
            partial.mkdir(parents=True)
            left = MAX_BYTES
            for entry in wanted:
                left -= _extract(packed, entry, partial, left, archive)
        files.replace(partial, folder)
    except _DAMAGED as error:
        raise DatasetError(
            tr("The ZIP is damaged or of an unsupported kind ({error}).", error=error),
            where=archive.name,
            do=tr("Pack it again."),
        ) from None
    except OSError as error:
        raise files.refusal(error, tr("The ZIP cannot be unpacked"), folder) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _inner(folder)


def _is_hidden(name: str) -> bool:
    """Whether a file is of the system or of another program; an artist's choices are not."""
    return any(part.startswith(_HIDDEN) for part in PurePosixPath(name.removesuffix(preparation.NAME)).parts)


def _checked(packed: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    """The files to unpack. Every name, even one that is skipped, must be safe on every system."""
    entries = packed.infolist()
    if len(entries) > MAX_FILES:
        raise DatasetError(
            tr("The ZIP contains {count:,} files; the limit is {most:,}.", count=len(entries), most=MAX_FILES),
            where=archive.name,
            do=tr("Pack fewer files."),
        )
    if len({_name(entry).casefold() for entry in entries}) < len(entries):
        raise DatasetError(
            tr("The ZIP contains two files of the same name."),
            where=archive.name,
            do=tr("Give them different names and pack again."),
        )
    for entry in entries:
        _require_safe(entry, archive)
    wanted = [entry for entry in entries if not _name(entry).endswith("/") and not _is_hidden(_name(entry))]
    if any(entry.flag_bits & _ENCRYPTED for entry in wanted):
        raise DatasetError(tr("The ZIP has a password."), where=archive.name, do=tr("Pack it again without one."))
    for entry in wanted:
        if entry.compress_type not in _METHODS:
            raise DatasetError(
                tr("{filename!r} in the ZIP is compressed with an unsupported method.", filename=entry.filename),
                where=archive.name,
                do=tr("Pack it with the default method (deflate)."),
            )
        _require_modest(entry.file_size, entry, archive)
    if sum(entry.file_size for entry in wanted) > MAX_BYTES:
        raise _too_much(archive)
    return wanted


def _name(entry: zipfile.ZipInfo) -> str:
    """The name of an entry with slashes. The format has nothing else (APPNOTE 6.3.10, §4.4.17.1), but some programs on
    Windows write backslashes.
    """
    return entry.filename.replace("\\", "/")


def _require_safe(entry: zipfile.ZipInfo, archive: Path) -> None:
    name = _name(entry).removesuffix("/")
    if _LEADS_OUT.search(name) or stat.S_ISLNK(entry.external_attr >> 16):
        raise DatasetError(
            tr(
                "The ZIP contains {filename!r}, a link or a name that leads out of its folder.", filename=entry.filename
            ),
            where=archive.name,
            do=_DISTRUST,
        )
    if _UNSTORABLE.search(name):
        raise DatasetError(
            tr("The ZIP contains {filename!r}, a name that not every system can store.", filename=entry.filename),
            where=archive.name,
            do=tr("Rename it and pack the pictures again."),
        )


def _extract(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, most: int, archive: Path) -> int:
    """Writes one file and returns its size. Bytes are counted while unpacking, since a header can be wrong."""
    target = folder / _name(entry)
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with packed.open(entry) as source, open(target, "xb") as file:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            _require_modest(size, entry, archive)
            if size > most:
                raise _too_much(archive)
            file.write(chunk)
    return size


def _require_modest(size: int, entry: zipfile.ZipInfo, archive: Path) -> None:
    if size > _SMALL and size > MAX_RATIO * entry.compress_size:
        raise DatasetError(
            tr(
                "{filename!r} in the ZIP would unpack to more than {max_ratio} times its size.",
                filename=entry.filename,
                max_ratio=MAX_RATIO,
            ),
            where=archive.name,
            do=_DISTRUST,
        )


def _too_much(archive: Path) -> DatasetError:
    return DatasetError(
        tr("The ZIP unpacks to more than {most} GiB.", most=MAX_BYTES // 1024**3),
        where=archive.name,
        do=tr("Pack fewer pictures."),
    )


def _inner(folder: Path) -> Path:
    """``folder``, or the one folder in it if it holds nothing else, unless that is named ``N_name``."""
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() and not listing.is_concept(inside[0].name) else folder
