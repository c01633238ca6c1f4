"""Opens one picture as upright 8-bit sRGB, whatever its format, depth, colours and orientation.

The format is detected from the content, never from the name, and only ``FORMATS`` are tried.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from lora_studio import files
from lora_studio.dataset import colour_marks, conversion
from lora_studio.dataset.near_duplicates import likeness
from lora_studio.dataset.problems import Kind
from lora_studio.errors import DatasetError
from lora_studio.language import both, tr

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "AVIF", "GIF", "PPM", "QOI")
READABLE = both(["PNG", "JPEG", "WebP", "BMP", "TIFF", "AVIF", "GIF", "PPM", "QOI"])
MAX_PIXELS = 80_000_000
"""A picture with more pixels is refused by its header, before decoding."""

SUFFIXES = frozenset(
    (".png .apng .jpg .jpeg .jpe .jfif .webp .bmp .dib .tif .tiff .avif .gif .ppm .pgm .pbm .pnm .qoi").split()
)
FOREIGN = frozenset(
    (
        ".svg .eps .ps .pdf .heic .heif .hif .jxl .psd .psb .jp2 .j2k .jpx .tga .pcx .dds .ico .exr .hdr .pfm .xcf .kra"
        " .ora .clip .ai .dng .cr2 .cr3 .nef .arw .raf .orf .rw2"
    ).split()
)
"""Endings of pictures in formats that are not supported."""
_PROMISING = SUFFIXES | FOREIGN
_SIGNATURES = {
    "HEIC": re.compile(rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL),
    "JPEG XL": re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    "Photoshop": re.compile(rb"8BPS"),
    "JPEG 2000": re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    "OpenEXR": re.compile(rb"\x76\x2f\x31\x01"),
    "Radiance HDR": re.compile(rb"#\?RADIANCE"),
}
"""How files of formats begin that often come under another ending, such as a phone's HEIC called .jpg."""

NOTICES: dict[Kind, tuple[str, str, str]] = {
    "frames": (
        "picture has several frames, of which the first is used",
        "pictures have several frames, of which the first is used",
        "Save the frames that you want as single pictures.",
    ),
    "exif": (
        "picture has damaged EXIF data and is not rotated",
        "pictures have damaged EXIF data and are not rotated",
        "Check that they are upright.",
    ),
    "profile": (
        "picture has a damaged or wrong colour profile, which is not used",
        "pictures have damaged or wrong colour profiles, which are not used",
        "Check their colours.",
    ),
    "cmyk": (
        "picture is CMYK without a profile, so its colours are approximate",
        "pictures are CMYK without a profile, so their colours are approximate",
        "Save them as sRGB.",
    ),
    "alpha": (
        "picture is partly transparent and is laid on white",
        "pictures are partly transparent and are laid on white",
        "Save each on a background of your choice. To learn only what is opaque, save the transparency as a mask, "
        "a-masklabel.png for a.png.",
    ),
    "key": (
        "picture has 16 bits per channel and a transparent colour, which is compared by its upper 8 bits",
        "pictures have 16 bits per channel and a transparent colour, which is compared by its upper 8 bits",
        "Save them with an alpha channel.",
    ),
}
"""Notices from reading a picture: for one, for several, what to do."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Operations for EXIF orientations (Exif 2.32, tag 274)."""
_WHITE = (255, 255, 255)
_TEXT_LIMIT = 64 * 1024**2
"""Bytes that a PNG's text or profile may unpack to. Photoshop's XMP and profiles of printers take megabytes."""

for _limit in ("MAX_TEXT_CHUNK", "MAX_TEXT_MEMORY"):
    setattr(PngImagePlugin, _limit, _TEXT_LIMIT)
# Pillow warns on standard error. What matters becomes a notice or an error here, and the limit of pixels is stricter.
warnings.filterwarnings("ignore", module=r"PIL\.")

_large = threading.Semaphore(1)
_LARGE_PIXELS = 20_000_000


class NotAPicture(DatasetError):
    """The content is in no supported format."""


@dataclass(frozen=True)
class Facts:
    """The facts of a picture that was read completely: ``width`` and ``height`` in pixels, after the EXIF rotation;
    ``notices`` are keys of ``NOTICES``; ``black`` is a mask without a pixel that is learned.
    """

    width: int
    height: int
    sha256: str
    likeness: str
    notices: tuple[str, ...] = ()
    black: bool = False


def open_picture(path: Path, background: tuple[int, int, int] = _WHITE) -> Image.Image:
    """The picture as upright 8-bit sRGB, with alpha composited on ``background``, and colours converted by its ICC
    profile or what else the file says of them (``colour_marks``).

    Raises:
        DatasetError: it cannot be read, is no picture, is damaged or incomplete, has more than ``MAX_PIXELS``, or has
            colours that are not defined in sRGB (HDR).
    """
    with _file(path) as file:
        return decode(file, path.name, background)


def opacity(path: Path) -> Image.Image | None:
    """The alpha channel of the upright picture, L; None if it is opaque.

    Raises:
        DatasetError: as ``open_picture``.
    """
    with _file(path) as file, _decoding(path.name), _opened(file, path.name) as image:
        depth = colour_marks.read(file, image).depth
        return conversion.opacity(_upright(image, 0, [])[0], depth)


def size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture, from its header.

    Raises:
        DatasetError: as ``open_picture``, as far as the header tells.
    """
    with _file(path) as file, _decoding(path.name), _opened(file, path.name) as image:
        width, height = image.size
        return (height, width) if _orientation(image, []) >= 5 else (width, height)


def decode(file: BinaryIO, name: str, background: tuple[int, int, int] = _WHITE, at_least: int = 0) -> Image.Image:
    """``open_picture`` from an open file; with ``at_least``, a JPEG may come smaller, its sides still at least that
    long.
    """
    with _decoding(name), _opened(file, name) as image:
        marks = colour_marks.read(file, image)
        upright, _ = _upright(image, at_least, [])
        picture = conversion.to_srgb(upright, marks, background, [])
        picture = picture.copy() if picture is image else picture
    picture.info = {}  # it would be written into files that are made from it
    return picture


def examine(path: Path) -> Facts:
    """Reads a picture completely, as training will, and returns its facts.

    Raises:
        DatasetError: as ``open_picture``; ``NotAPicture`` if the content is none.
    """
    notices: list[str] = []
    with _file(path) as file, _decoding(path.name), _opened(file, path.name) as image:
        if image.format != "MPO" and getattr(image, "is_animated", False):  # a phone's MPO holds one picture and extras
            notices.append("frames")
        marks = colour_marks.read(file, image)
        jpeg, (width, height) = image.format in ("JPEG", "MPO"), image.size
        with _large if width * height > _LARGE_PIXELS else nullcontext():
            upright, swapped = _upright(image, 64, notices)
            if not jpeg:  # which may have been decoded at a fraction of its size
                width, height = upright.size
            elif swapped:
                width, height = height, width
            looks = likeness(conversion.to_srgb(upright, marks, _WHITE, notices))
    return Facts(width, height, files.sha256(path), looks, tuple(notices))


def thumbnail(path: Path, folder: Path, side: int = 256, sha256: str = "") -> Path:
    """A small JPEG of the picture, created once and named by the hash of its content. It contains no metadata of the
    original file. Where ``sha256`` of the content is known, a thumbnail that exists costs nothing.

    Raises:
        DatasetError: as ``open_picture``.
    """
    if sha256 and (known := thumbnail_file(folder, side, sha256)).exists():
        return known
    data = contents(path)
    target = thumbnail_file(folder, side, hashlib.sha256(data).hexdigest())
    if not target.exists():
        small = decode(io.BytesIO(data), path.name, at_least=2 * side)
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        small.save(out, "JPEG", quality=88)
        files.write(target, out.getvalue())
    return target


def thumbnail_file(folder: Path, side: int, sha256: str) -> Path:
    """Where ``thumbnail`` keeps that of a picture with this hash."""
    return folder / f"{sha256}-{side}.jpg"


def contents(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        DatasetError: it cannot be read.
    """
    with _file(path) as file:
        return file.read()


def promises(name: str) -> bool:
    """Whether a file has the ending of a picture, in a supported format or another."""
    return os.path.splitext(name)[1].lower() in _PROMISING


@contextmanager
def _file(path: Path) -> Generator[BinaryIO]:
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise DatasetError(
            tr("The picture cannot be read: {reason}.", reason=files.reason(error)),
            where=path,
            do=tr("Check that it exists and that you may read it."),
        ) from None


@contextmanager
def _decoding(name: str) -> Generator[None]:
    """Turns whatever a decoder raises into DatasetError: decoders raise almost every kind of exception."""
    try:
        yield
    except DatasetError:
        raise
    except MemoryError:
        raise DatasetError(
            tr("There is not enough memory to decode the picture."),
            where=name,
            do=tr("Make it smaller or close other programs."),
        ) from None
    except Exception as error:
        if "Decompressed data too large" in str(error):
            raise DatasetError(
                tr("The text in the picture unpacks to more than {most} MB.", most=_TEXT_LIMIT // 1024**2),
                where=name,
                do=tr("Save it without metadata."),
            ) from None
        raise DatasetError(
            tr("The picture is damaged or incomplete ({error}).", error=error or type(error).__name__),
            where=name,
            do=tr("Save or download it again."),
        ) from None


@contextmanager
def _opened(file: BinaryIO, name: str) -> Generator[Image.Image]:
    """The picture with its header read and its size checked, not decoded yet."""
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise _not_a_picture(file, name) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(name, tr("more than twice the limit")) from None
    with image:
        if image.format == "PPM" and image.mode == "F":  # a PFM, whose values are linear light without a range
            raise _unsupported("PFM", name)
        if image.width * image.height > MAX_PIXELS:
            raise _too_large(
                name,
                tr(
                    "{width} × {height} = {millions:.0f} million pixels",
                    width=image.width,
                    height=image.height,
                    millions=image.width * image.height / 1e6,
                ),
            )
        yield image


def _not_a_picture(file: BinaryIO, name: str) -> NotAPicture:
    suffix = Path(name).suffix.lower()
    file.seek(0, io.SEEK_END)
    if not file.tell():
        return NotAPicture(tr("The file is empty (0 bytes)."), where=name, do=tr("Save or download it again."))
    file.seek(0)
    begins = file.read(16)
    if kind := next((kind for kind, signature in _SIGNATURES.items() if signature.match(begins)), ""):
        return _unsupported(kind, name)
    if suffix in FOREIGN:
        return _unsupported(suffix[1:].upper(), name)
    return NotAPicture(
        tr("The file is not a picture, or its header is damaged."),
        where=name,
        do=tr("Save it again as one of {formats}.", formats=READABLE),
    )


def _unsupported(kind: str, name: str) -> NotAPicture:
    return NotAPicture(
        tr("{kind} files are not supported.", kind=kind),
        where=name,
        do=tr("Export it as PNG. Supported formats: {formats}.", formats=READABLE),
    )


def _too_large(name: str, size: str) -> DatasetError:
    return DatasetError(
        tr("The picture is too large: {size}.", size=size),
        where=name,
        do=tr("Make it smaller than {most} million pixels.", most=MAX_PIXELS // 1000000),
    )


def _upright(image: Image.Image, at_least: int, notices: list[str]) -> tuple[Image.Image, bool]:
    """``image`` completely decoded and rotated by its EXIF data, and whether that swapped its sides."""
    if at_least:
        image.draft(None, (at_least, at_least))  # only JPEG supports it; the whole stream is still read
    image.load()
    orientation = _orientation(image, notices)
    turn = _TURNS.get(orientation)
    return (image, False) if turn is None else (image.transpose(turn), orientation >= 5)


def _orientation(image: Image.Image, notices: list[str]) -> int:
    """How it is to be turned, a key of ``_TURNS`` or 0; damaged EXIF data are added to ``notices``."""
    try:
        found = image.getexif().get(0x0112, 0)
    except Exception:
        notices.append("exif")
        return 0
    return found if found in _TURNS else 0
