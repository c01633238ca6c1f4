"""Grids as files: pictures whose header holds the recipe. Pillow only."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import ValidationError

from lora_studio.adapters.recipe import KEY
from lora_studio.errors import SettingsError
from lora_studio.language import fault, tr
from lora_studio.sampling import picture_file
from lora_studio.sampling.axes import Grid
from lora_studio.sampling.sheet import sheet


def grid(**values: object) -> Grid:
    """A ``Grid`` from plain values.

    Raises:
        SettingsError: the axes do not go together.
    """
    try:
        return Grid.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(
            tr("The grid makes no sense: {reason}.", reason=fault(first)),
            where=".".join(map(str, first["loc"])),
            do=tr("Vary two different things; weight:FILE=… says whose weight."),
        ) from None


def to_png(recipe: Grid, images: Sequence[Image.Image]) -> bytes:
    """The labelled sheet of ``images``, in the order of the cells, with the recipe as JSON in a text chunk
    named ``KEY``.
    """
    wide = len(recipe.x.values)
    rows = [images[start : start + wide] for start in range(0, len(images), wide)]
    varied = {axis.kind for axis in recipe.axes}
    title = ", ".join(
        [
            *([recipe.prompt] if "prompt" not in varied else []),
            *([f"seed {recipe.seed}"] if "seed" not in varied else []),
        ]
    )
    note, data = PngInfo(), io.BytesIO()
    note.add_text(KEY, recipe.model_dump_json())
    sheet(rows, columns=recipe.x.labels, names=recipe.y.labels if recipe.y else (), title=title).save(
        data, "PNG", pnginfo=note
    )
    return data.getvalue()


def read_recipe(path: Path) -> Grid:
    """The recipe in a sheet's header, a PNG or a WebP.

    Raises:
        SettingsError: the file is no picture, or holds no recipe.
    """
    do = tr("Choose a sheet that the studio drew; images that were cut or converted have lost theirs.")
    text = picture_file.texts(Path(path)).get(KEY)
    if not text:
        raise SettingsError(tr("{name} holds no recipe.", name=Path(path).name), where=path, do=do)
    try:
        return Grid.model_validate_json(text)
    except ValidationError:
        raise SettingsError(tr("The recipe in {name} is damaged.", name=Path(path).name), where=path, do=do) from None
