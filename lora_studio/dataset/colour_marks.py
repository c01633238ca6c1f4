"""What a file says about its colours beside an ICC profile: chunks of a PNG, the ``colr`` box of an AVIF, EXIF data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from PIL import Image

from lora_studio.dataset.colours import ADOBE_RGB, SRGB, Chromaticities, ColourSpace, from_cicp

_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 10_000
_MAX_META = 4 * 1024**2
"""Bytes of an AVIF's description that are read; usual ones have a few hundred."""
_EXIF, _INTEROPERABILITY = 0x8769, 0xA005
"""Tags of the directories within EXIF data (Exif 3.0, §4.6.3)."""


class Marks(NamedTuple):
    """What was found: the colours that the file declares, None if nothing; whether that goes before its ICC profile;
    and the bits of a PNG's or PPM's samples, 0 for other formats.
    """

    space: ColourSpace | None = None
    over_profile: bool = False
    depth: int = 0


def read(file: BinaryIO, image: Image.Image) -> Marks:
    """The marks of an opened ``image``; ``file`` is left where it was. Damaged marks count as none."""
    place = file.tell()
    try:
        if image.format == "PNG":
            return _png(file)
        if image.format == "PPM":
            return Marks(depth=16 if image.mode == "I" else 8)  # Pillow scales them to either
        if image.format == "AVIF":
            return Marks(_nclx(file))
    finally:
        file.seek(place)
    return Marks(_by_exif(image))


@dataclass
class _Chunks:
    depth: int = 0
    found: dict[bytes, bytes] = field(default_factory=dict)


def _png(file: BinaryIO) -> Marks:
    """The order of precedence is cICP, iCCP, sRGB, gAMA with cHRM (PNG, third edition, §4.3)."""
    chunks = _chunks(file)
    if (cicp := chunks.found.get(b"cICP")) and len(cicp) == 4:
        return Marks(from_cicp(cicp[0], cicp[1], narrow=not cicp[3]), True, chunks.depth)
    if b"sRGB" in chunks.found:
        return Marks(SRGB, False, chunks.depth)
    gamma = int.from_bytes(chunks.found.get(b"gAMA", b"")[:4], "big") / 100_000
    corners = _chromaticities(chunks.found.get(b"cHRM", b""))
    if not gamma and corners is None:
        return Marks(depth=chunks.depth)
    return Marks(SRGB.with_primaries(corners).with_gamma(gamma), False, chunks.depth)


def _chunks(file: BinaryIO) -> _Chunks:
    """The chunks about colour, which stand before the picture's data."""
    chunks = _Chunks()
    file.seek(len(_PNG))
    for _ in range(_MAX_CHUNKS):
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if len(head) < 8 or kind == b"IDAT":
            break
        if kind in (b"IHDR", b"cICP", b"sRGB", b"gAMA", b"cHRM") and length <= 64:
            chunks.found[kind] = file.read(length)
            file.seek(4, 1)
        else:
            file.seek(length + 4, 1)
    header = chunks.found.get(b"IHDR", b"")
    chunks.depth = header[8] if len(header) == 13 else 0
    return chunks


def _chromaticities(data: bytes) -> Chromaticities | None:
    """White, red, green and blue as (x, y), of a cHRM chunk; None if it is missing or impossible."""
    if len(data) != 32:
        return None
    values = [int.from_bytes(data[at : at + 4], "big") / 100_000 for at in range(0, 32, 4)]
    found = Chromaticities(*zip(values[::2], values[1::2], strict=True))
    return found if found.possible else None


def _nclx(file: BinaryIO) -> ColourSpace | None:
    """The colours of an AVIF's ``colr`` box of type ``nclx`` (ISO/IEC 14496-12, §12.1.5), which Pillow does not
    report. The range is that of the stored YCbCr, which the decoder undoes.
    """
    file.seek(0)
    boxes = dict(_boxes(file.read(_MAX_META)))
    properties = b"".join(
        inner
        for kind, data in _boxes(boxes.get(b"meta", b"")[4:])
        if kind == b"iprp"
        for name, inner in _boxes(data)
        if name == b"ipco"
    )
    for kind, data in _boxes(properties):
        if kind == b"colr" and data[:4] == b"nclx" and len(data) >= 8:
            return from_cicp(int.from_bytes(data[4:6], "big"), int.from_bytes(data[6:8], "big"))
    return None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of the boxes of an ISO base media file, up to the first that is damaged."""
    at = 0
    while at + 8 <= len(data):
        size, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        size = size or len(data) - at
        if size < head:
            return
        yield kind, data[at + head : at + size]
        at += size


def _by_exif(image: Image.Image) -> ColourSpace | None:
    """Adobe RGB as cameras note it: index R03 with a colour space that is not sRGB (DCF 2.0, §3.2), or the value 2
    that some programs write there.
    """
    try:
        exif = image.getexif()
        directory = exif.get_ifd(_EXIF)
        space = directory.get(0xA001)
        index = exif.get_ifd(_INTEROPERABILITY).get(1) if _INTEROPERABILITY in directory else None
    except Exception:  # damaged EXIF data, which the notice on the rotation names
        return None
    return ADOBE_RGB if space == 2 or (space != 1 and str(index).startswith("R03")) else None
