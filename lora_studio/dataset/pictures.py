"""Opening one picture: whatever its format, depth, colours and turn, out comes plain upright sRGB.

A file is judged by its content, never by its name, and only the formats in ``FORMATS`` are ever tried.
"""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from collections.abc import Iterator
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
"""A picture with more pixels is refused from its header, before a byte of it is decoded."""

SUFFIXES = frozenset(".png .apng .jpg .jpeg .jpe .jfif .webp .bmp .dib .tif .tiff .avif .gif".split())
FOREIGN = frozenset(
    ".svg .eps .ps .pdf .heic .heif .jxl .psd .jp2 .tga .ico .exr .hdr .xcf .kra .ai .dng .cr2 .cr3 .nef .arw .raf".split()
)
"""Names that promise a picture in a format that is not read."""

NOTICES = {
    "frames": (
        "picture has several frames, of which the first is used",
        "pictures have several frames, of which the first is used",
        "Save the frames you want as single pictures.",
    ),
    "exif": (
        "picture has damaged EXIF data and is used as it lies",
        "pictures have damaged EXIF data and are used as they lie",
        "Check that they stand upright.",
    ),
    "profile": (
        "picture has a damaged or wrong colour profile, which was not used",
        "pictures have damaged or wrong colour profiles, which were not used",
        "Check their colours.",
    ),
    "cmyk": (
        "picture is CMYK without a profile, so its colours are approximate",
        "pictures are CMYK without a profile, so their colours are approximate",
        "Save them as sRGB.",
    ),
}
"""What a picture's reading may remark: said of one, said of several, what to do."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What EXIF's orientations ask for (Exif 2.32, tag 274)."""
_WHITE = (255, 255, 255)
_GREY = frozenset(("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"))
_DEEP = frozenset(("I", "F", "I;16", "I;16B", "I;16L", "I;16N"))
_SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK", "Lab": "LAB"}

# Pillow warns on standard error. What matters of it is a notice or an error here, and the limit on pixels is stricter
# than its own.
warnings.filterwarnings("ignore", module=r"PIL\.")

_large = threading.Semaphore(1)
_LARGE_PIXELS = 20_000_000


class NotAPicture(DatasetError):
    """The content is in none of the formats that are read."""


@dataclass(frozen=True)
class Facts:
    """What one full reading of a picture tells: ``width`` and ``height`` in pixels, after the EXIF turn; ``notices``
    are keys of ``NOTICES``.
    """

    width: int
    height: int
    sha256: str
    likeness: str
    notices: tuple[str, ...] = ()


def open_picture(path: Path, background: tuple[int, int, int] = _WHITE) -> Image.Image:
    """The picture as 8-bit sRGB: turned upright, alpha composited on ``background``, colours converted by its ICC
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
    with _mended(name), _opened(file, name) as image:
        upright, _ = _upright(image, at_least, [])
        picture = _srgb(upright, background, [])
        picture = picture.copy() if picture is image else picture
    picture.info = {}  # what lies there would be written into files made from it
    return picture


def examine(path: Path) -> Facts:
    """Reads all of a picture, as training will, and tells its facts.

    Raises:
        DatasetError: as ``open_picture``; ``NotAPicture`` where the content is none.
    """
    notices: list[str] = []
    with _file(path) as file, _mended(path.name), _opened(file, path.name) as image:
        if image.format != "MPO" and getattr(
            image, "is_animated", False
        ):  # a phone's MPO holds one picture and its extras
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
    """A small JPEG of the picture, made once and named by the picture's content; nothing of the original file is in it
    but its look.

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
    """Whether a file's name promises a picture, in a format that is read or in another."""
    return Path(name).suffix.lower() in SUFFIXES | FOREIGN


@contextmanager
def _file(path: Path) -> Iterator[BinaryIO]:
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise DatasetError(
            f"The picture cannot be read: {error.strerror}.",
            where=path,
            do="Check that it is there and that you may read it.",
        ) from None


@contextmanager
def _mended(name: str) -> Iterator[None]:
    """Says of whatever a decoder trips over that the picture is damaged: decoders raise nearly every kind of exception."""
    try:
        yield
    except DatasetError:
        raise
    except MemoryError:
        raise DatasetError(
            "There is not enough memory to decode the picture.",
            where=name,
            do="Make it smaller, or close other programs.",
        ) from None
    except Exception as error:
        raise DatasetError(
            f"The picture is damaged or incomplete ({error or type(error).__name__}).",
            where=name,
            do="Save or download it again.",
        ) from None


@contextmanager
def _opened(file: BinaryIO, name: str) -> Iterator[Image.Image]:
    """The picture with its header read and its size checked, nothing decoded yet."""
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise _not_a_picture(file, name) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(name, "more than twice as many pixels as are read") from None
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
            f"{suffix[1:].upper()} files are not read.", where=name, do=f"Export it as PNG; read are {READABLE}."
        )
    return NotAPicture(
        "The content is no picture, or its header is damaged.", where=name, do=f"Save it again as one of {READABLE}."
    )


def _too_large(name: str, size: str) -> DatasetError:
    return DatasetError(
        f"The picture is too large: {size}.",
        where=name,
        do=f"Make it smaller than {MAX_PIXELS // 1_000_000} million pixels.",
    )


def _upright(image: Image.Image, at_least: int, notices: list[str]) -> tuple[Image.Image, bool]:
    """``image`` with all of it decoded, turned as its EXIF data says; and whether that swapped its sides."""
    if at_least:
        image.draft(None, (at_least, at_least))  # only a JPEG can; its whole stream is still read
    image.load()
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:
        notices.append("exif")
        return image, False
    turn = _TURNS.get(orientation)
    return (image, False) if turn is None else (image.transpose(turn), orientation >= 5)


def _srgb(image: Image.Image, background: tuple[int, int, int], notices: list[str]) -> Image.Image:
    """A loaded, upright picture of any mode as RGB in sRGB; the same object where it is that already."""
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
    """A grey picture of 16 or 32 bits scaled to 8; a plain ``convert`` would clip it to white."""
    values = np.nan_to_num(np.asarray(image).astype(np.float32))
    full = 65535.0
    if image.mode in ("I", "F"):  # nothing says how far these reach, so: the first usual full scale that holds them
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
    """An L, RGB, CMYK or LAB picture as sRGB, through ``profile`` where it fits the picture's colours."""
    if image.mode == "LAB":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    if profile:
        mode = _SPACES.get(profile.profile.xcolor_space.strip())
        if mode == "RGB" and image.mode == "L":
            image = image.convert("RGB")
        if mode == image.mode:
            try:
                return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
            except ImageCms.PyCMSError:
                pass
        notices.append("profile")
    elif image.mode == "CMYK":
        notices.append("cmyk")
    return image if image.mode == "RGB" else image.convert("RGB")
