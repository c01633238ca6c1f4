"""A picture's file: a PNG that tells its recipe, in a chunk of the studio's own and as A1111's web UI writes it. Pillow
only.
"""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import ValidationError

from lora_studio import files
from lora_studio.adapters.recipe import KEY
from lora_studio.errors import SettingsError
from lora_studio.language import tr
from lora_studio.sampling import infotext
from lora_studio.sampling.axes import Grid
from lora_studio.sampling.picture_recipe import PictureRecipe, Stated, UsedAdapter

PARAMETERS = "parameters"
"""The text chunk in which A1111 writes how a picture was made; Forge, Civitai and loaders of ComfyUI read it."""
_EXIF, _COMMENT = 0x8769, 0x9286
"""Where A1111 writes the same in a JPEG or WebP: the EXIF directory, and in it ``UserComment`` (Exif 2.32, §4.6.5)."""
_DESCRIPTION = 0x010E
"""``ImageDescription``, where the studio's own recipe is in a WebP."""
_QUALITY = 90
_LONGEST = 16383
"""Pixels on a side of a WebP (RFC 9649, §2.5)."""
_ENCODINGS = {b"UNICODE\0": "utf-16-be", b"ASCII\0\0\0": "ascii"}
_FORMATS = ("PNG", "JPEG", "WEBP")


def file_name(prompt: str, seed: int) -> str:
    """The name of a picture's file. Slashes and escaped brackets of a prompt are no path.

    >>> file_name("a cat, asleep", 7)
    'a-cat-asleep-7.png'
    """
    words = files.safe_name(prompt.replace("/", " ").replace("\\", " "))
    return f"{words[:40]}-{seed}.png"


def to_png(image: Image.Image, recipe: PictureRecipe) -> bytes:
    """The picture as a PNG that tells its recipe, to the studio and to other programs."""
    note, data = PngInfo(), io.BytesIO()
    note.add_text(PARAMETERS, infotext.write(recipe))
    note.add_text(KEY, recipe.model_dump_json())
    image.save(data, "PNG", pnginfo=note)
    return data.getvalue()


def to_webp(png: bytes) -> bytes:
    """A picture or sheet of the studio as a WebP, a tenth as large, which tells the same.

    Raises:
        SettingsError: a side is longer than the format can hold.
    """
    exif, data = Image.Exif(), io.BytesIO()
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        if max(image.size) > _LONGEST:
            raise SettingsError(
                tr(
                    "The picture is {width} × {height} pixels, and a WebP at most {longest} on a side.",
                    width=image.width,
                    height=image.height,
                    longest=_LONGEST,
                ),
                where="WebP",
                do=tr("Save it as a PNG."),
            )
        if own := image.info.get(KEY):
            exif[_DESCRIPTION] = json.dumps(json.loads(own))  # EXIF holds ASCII
        if told := image.info.get(PARAMETERS):
            exif.get_ifd(_EXIF)[_COMMENT] = b"UNICODE\0" + told.encode("utf-16-be")
        image.save(data, "WEBP", quality=_QUALITY, method=4, exif=exif)
    return data.getvalue()


def read(path: Path) -> Stated:
    """What the picture at ``path`` tells of how it was made, by the studio or by A1111 and programs that write as it
    does. A sheet tells what its pictures have in common.

    Raises:
        SettingsError: the file is no picture, or tells nothing of it.
    """
    told = texts(path)
    if (own := _own(told.get(KEY, ""))) is not None:
        return own
    stated = infotext.read(told.get(PARAMETERS, ""))
    if not stated.values and told.get(KEY):
        raise SettingsError(
            tr("The recipe in {name} is damaged, or of a later version of the studio.", name=path.name),
            where=path,
            do=tr("Choose another picture, or install the latest version."),
        )
    if not stated.values:
        raise SettingsError(
            tr("{name} does not tell how it was made.", name=path.name),
            where=path,
            do=tr(
                "Choose a PNG as the studio, A1111 or Forge saved it: programs that edit or send pictures drop this."
            ),
        )
    return stated


def _own(text: str) -> Stated | None:
    """What the studio's own recipe says; None where it is none, damaged, or of a later version."""
    with suppress(ValidationError):  # most are of pictures
        return _of_sheet(Grid.model_validate_json(text))
    with suppress(ValidationError):  # ``read`` looks at what A1111 would read, and else says so
        return Stated(PictureRecipe.model_validate_json(text).model_dump(exclude={"kind", "version"}), {}, True)
    return None


def _of_sheet(grid: Grid) -> Stated:
    varied = {axis.kind for axis in grid.axes}
    told = grid.model_dump(exclude={"kind", "version", "x", "y", "adapters"} | varied)
    used = [UsedAdapter(name=one.name, weight=one.weight, sha256=one.sha256).model_dump() for one in grid.adapters]
    sides = zip(("Columns", "Rows"), grid.axes, strict=False)
    return Stated({**told, "adapters": used}, {side: ", ".join(axis.labels) for side, axis in sides}, True)


def texts(path: Path) -> dict[str, str]:
    """The texts in a picture's header by name; ``KEY`` and ``PARAMETERS`` also for a JPEG or WebP.

    Raises:
        SettingsError: the file is no picture.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            found = {str(key): value for key, value in image.info.items() if isinstance(value, str)}
            exif = image.getexif()
            comment, own = exif.get_ifd(_EXIF).get(_COMMENT), exif.get(_DESCRIPTION)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SettingsError(
            tr("{name} cannot be read as a picture.", name=path.name), where=path, do=tr("Choose a PNG, JPEG or WebP.")
        ) from error
    if isinstance(own, str):
        found.setdefault(KEY, own)
    if isinstance(comment, bytes):
        encoding = _ENCODINGS.get(comment[:8], "utf-8")
        found.setdefault(PARAMETERS, comment[8:].decode(encoding, "replace"))
    return found
