"""Opens one picture as upright 8-bit sRGB, whatever its format, depth, colours and orientation.

The format is detected from the content, never from the name, and only ``FORMATS`` are tried.
"""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from lora_studio import files
from lora_studio.dataset.near_duplicates import likeness
from lora_studio.errors import DatasetError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "AVIF", "GIF")
READABLE = "PNG, JPEG, WebP, BMP, TIFF, AVIF and GIF"
MAX_PIXELS = 80_000_000
"""A picture with more pixels is refused by its header, before decoding."""

SUFFIXES = frozenset(".png .apng .jpg .jpeg .jpe .jfif .webp .bmp .dib .tif .tiff .avif .gif".split())
FOREIGN = frozenset(
    (
        ".svg .eps .ps .pdf .heic .heif .jxl .psd .jp2 .tga .ico .exr .hdr .xcf .kra .ai .dng .cr2 .cr3 .nef .arw .raf"
    ).split()
)
"""Endings of pictures in formats that are not supported."""

NOTICES = {
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
_GREY = frozenset(("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"))
_DEEP = frozenset(("I", "F", "I;16", "I;16B", "I;16L", "I;16N"))
_SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK", "Lab": "LAB"}

# Pillow warns on standard error. What matters becomes a notice or an error here, and the limit of pixels is stricter.
warnings.filterwarnings("ignore", module=r"PIL\.")

_large = threading.Semaphore(1)
_LARGE_PIXELS = 20_000_000


class NotAPicture(DatasetError):
    """The content is in no supported format."""


@dataclass(frozen=True)
class Facts:
    """The facts of a picture that was read completely: ``width`` and ``height`` in pixels, after the EXIF rotation;
    ``notices`` are keys of ``NOTICES``.
    """

    width: int
    height: int
    sha256: str
    likeness: str
    notices: tuple[str, ...] = ()


def open_picture(path: Path, background: tuple[int, int, int] = _WHITE) -> Image.Image:
    """The picture as upright 8-bit sRGB, with alpha composited on ``background``, and colours converted by its ICC
    profile.

    Raises:
        DatasetError: it cannot be read, is no picture, is damaged or incomplete, or has more than ``MAX_PIXELS``.
    """
    with _file(path) as file:
        return decode(file, path.name, background)


def decode(file: BinaryIO, name: str, background: tuple[int, int, int] = _WHITE, at_least: int = 0) -> Image.Image:
    """``open_picture`` from an open file; with ``at_least``, a JPEG may come smaller, its sides still at least that
    long.
    """
    with _decoding(name), _opened(file, name) as image:
        upright, _ = _upright(image, at_least, [])
        picture = _srgb(upright, background, [])
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
        jpeg, (width, height) = image.format in ("JPEG", "MPO"), image.size
        with _large if width * height > _LARGE_PIXELS else nullcontext():
            upright, swapped = _upright(image, 64, notices)
            if not jpeg:  # which may have been decoded at a fraction of its size
                width, height = upright.size
            elif swapped:
                width, height = height, width
            looks = likeness(_srgb(upright, _WHITE, notices))
    return Facts(width, height, files.sha256(path), looks, tuple(notices))


def thumbnail(path: Path, folder: Path, side: int = 256) -> Path:
    """A small JPEG of the picture, created once and named by the hash of its content. It contains no metadata of the
    original file.

    Raises:
        DatasetError: as ``open_picture``.
    """
    data = contents(path)
    target = folder / f"{hashlib.sha256(data).hexdigest()}-{side}.jpg"
    if not target.exists():
        small = decode(io.BytesIO(data), path.name, at_least=2 * side)
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        small.save(out, "JPEG", quality=88)
        files.write(target, out.getvalue())
    return target


def contents(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        DatasetError: it cannot be read.
    """
    with _file(path) as file:
        return file.read()


def promises(name: str) -> bool:
    """Whether a file has the ending of a picture, in a supported format or another."""
    return Path(name).suffix.lower() in SUFFIXES | FOREIGN


@contextmanager
def _file(path: Path) -> Generator[BinaryIO]:
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise DatasetError(
            f"The picture cannot be read: {files.reason(error)}.",
            where=path,
            do="Check that it exists and that you may read it.",
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
            "There is not enough memory to decode the picture.",
            where=name,
            do="Make it smaller or close other programs.",
        ) from None
    except Exception as error:
        raise DatasetError(
            f"The picture is damaged or incomplete ({error or type(error).__name__}).",
            where=name,
            do="Save or download it again.",
        ) from None


@contextmanager
def _opened(file: BinaryIO, name: str) -> Generator[Image.Image]:
    """The picture with its header read and its size checked, not decoded yet."""
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise _not_a_picture(file, name) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(name, "more than twice the limit") from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise _too_large(
                name, f"{image.width} × {image.height} = {image.width * image.height / 1e6:.0f} million pixels"
            )
        yield image


def _not_a_picture(file: BinaryIO, name: str) -> NotAPicture:
    suffix = Path(name).suffix.lower()
    file.seek(0, io.SEEK_END)
    if not file.tell():
        return NotAPicture("The file is empty (0 bytes).", where=name, do="Save or download it again.")
    if suffix in FOREIGN:
        return NotAPicture(
            f"{suffix[1:].upper()} files are not supported.",
            where=name,
            do=f"Export it as PNG. Supported formats: {READABLE}.",
        )
    return NotAPicture(
        "The file is not a picture, or its header is damaged.", where=name, do=f"Save it again as one of {READABLE}."
    )


def _too_large(name: str, size: str) -> DatasetError:
    return DatasetError(
        f"The picture is too large: {size}.",
        where=name,
        do=f"Make it smaller than {MAX_PIXELS // 1_000_000} million pixels.",
    )


def _upright(image: Image.Image, at_least: int, notices: list[str]) -> tuple[Image.Image, bool]:
    """``image`` completely decoded and rotated by its EXIF data, and whether that swapped its sides."""
    if at_least:
        image.draft(None, (at_least, at_least))  # only JPEG supports it; the whole stream is still read
    image.load()
    try:
        orientation = image.getexif().get(0x0112, 0)
    except Exception:
        notices.append("exif")
        return image, False
    turn = _TURNS.get(orientation)
    return (image, False) if turn is None else (image.transpose(turn), orientation >= 5)


def _srgb(image: Image.Image, background: tuple[int, int, int], notices: list[str]) -> Image.Image:
    """A loaded upright image of any mode as RGB in sRGB; the same object if it is that already."""
    profile = _profile(image.info.get("icc_profile"), notices)
    plain = "L" if image.mode in _GREY else "RGB"
    if image.mode in _DEEP:
        image = _eight_bits(image)
    alpha = None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha, image = rgba.getchannel("A"), rgba.convert(plain)
    elif image.mode not in _SPACES.values():
        image = image.convert(plain)
    colour = _managed(image, profile, notices)
    return colour if alpha is None else Image.composite(colour, Image.new("RGB", colour.size, background), alpha)


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 or 32 bits scaled to 8 bits; ``convert`` would clip it to white."""
    values = np.nan_to_num(np.asarray(image).astype(np.float32))
    full = 65535.0
    if image.mode in ("I", "F"):  # their range is not recorded: use the first common full scale that contains them
        scales = (255.0, full, 2.0**31, 2.0**32) if image.mode == "I" else (1.0, 255.0, full)
        full = next((scale for scale in scales if values.max() <= scale), float(values.max()))
    return Image.fromarray((values.clip(0, full) * (255.0 / full) + 0.5).astype(np.uint8))


def _profile(data: bytes | None, notices: list[str]) -> ImageCms.ImageCmsProfile | None:
    if not data:
        return None
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(data))
    except (OSError, ValueError):
        notices.append("profile")
        return None


def _managed(image: Image.Image, profile: ImageCms.ImageCmsProfile | None, notices: list[str]) -> Image.Image:
    """An L, RGB, CMYK or LAB image as sRGB, by ``profile`` if it fits the image's mode."""
    if image.mode == "LAB":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    if profile:
        mode = _SPACES.get(profile.profile.xcolor_space.strip())
        if mode == "RGB" and image.mode == "L":
            image = image.convert("RGB")
        if mode == image.mode:
            try:
                converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
            except ImageCms.PyCMSError:
                converted = None
            if converted:
                return converted
        notices.append("profile")
    elif image.mode == "CMYK":
        notices.append("cmyk")
    return image if image.mode == "RGB" else image.convert("RGB")
