"""A loaded image of any mode as RGB in sRGB: depth, transparency, ICC profile, and other marks of its colours."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

from lora_studio.dataset import colours
from lora_studio.dataset.colour_marks import Marks
from lora_studio.errors import DatasetError
from lora_studio.language import tr

_GREY = frozenset(("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"))
_DEEP = frozenset(("I", "F", "I;16", "I;16B", "I;16L", "I;16N"))
_SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK", "Lab": "LAB"}


def to_srgb(image: Image.Image, marks: Marks, background: tuple[int, int, int], notices: list[str]) -> Image.Image:
    """A loaded upright image of any mode as RGB in sRGB; the same object if it is that already.

    Raises:
        DatasetError: its colours have no exact sRGB.
    """
    profile = None if marks.over_profile else _profile(image.info.get("icc_profile"), notices)
    if not profile and marks.space and marks.space.why_not:
        raise DatasetError(
            tr(
                "The picture's colours are {why_not}, which no program converts to sRGB in the same way.",
                why_not=marks.space.why_not,
            ),
            do=tr("Export it as sRGB (SDR), so that you decide how it looks."),
        )
    plain = "L" if image.mode in _GREY else "RGB"
    alpha = _opaque(image, marks.depth, notices)
    if image.mode in _DEEP:
        image = _eight_bits(image, marks.depth)
    if alpha is None and image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha, image = rgba.getchannel("A"), rgba.convert(plain)
    elif image.mode not in _SPACES.values():
        image = image.convert(plain)
    colour = _managed(image, profile, notices)
    if not profile and marks.space and not marks.space.is_srgb and image.mode in ("L", "RGB"):
        colour = colours.to_srgb(image, marks.space)
    if alpha is None or alpha.getextrema()[0] == 255:
        return colour
    notices.append("alpha")
    return Image.composite(colour, Image.new("RGB", colour.size, background), alpha)


def opacity(image: Image.Image, depth: int) -> Image.Image | None:
    """The alpha (L) of a loaded image; None if it is opaque. ``depth`` in bits, of a transparent colour."""
    alpha = _opaque(image, depth, [])
    if alpha is None and image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
    return None if alpha is None or alpha.getextrema()[0] == 255 else alpha


def _opaque(image: Image.Image, depth: int, notices: list[str]) -> Image.Image | None:
    """The alpha (L) of an image with one transparent colour (a PNG's tRNS, which holds a sample of ``depth`` bits);
    None for others.
    """
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple):
        if depth == 16:  # Pillow drops the lower bits
            notices.append("key")
            key = tuple(value >> 8 for value in key)
        opaque = (np.asarray(image) != np.array(key)).any(axis=2)
    elif image.mode in _GREY and isinstance(key, int):
        if image.mode == "L" and depth in (2, 4):  # Pillow scales the samples and not the key
            key = key * 255 // (2**depth - 1)
        opaque = np.asarray(image.convert("L") if image.mode == "1" else image) != key
    else:
        return None
    return Image.fromarray(opaque.astype(np.uint8) * 255)


def _eight_bits(image: Image.Image, depth: int) -> Image.Image:
    """A grey image of 16 or 32 bits scaled to 8 bits; ``convert`` would clip it to white."""
    values = np.nan_to_num(np.asarray(image).astype(np.float32))
    full = 65535.0
    if image.mode in ("I", "F") and depth != 16:  # their range is not recorded: use the first that contains them
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
