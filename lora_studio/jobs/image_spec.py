"""What the process that draws can be asked for. No torch."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from lora_studio import __version__
from lora_studio.config.specs import SPECS
from lora_studio.dataset.items import Picture
from lora_studio.dataset.preparation import Crop
from lora_studio.sampling.axes import Axis
from lora_studio.sampling.image_settings import FromImage, ImageSettings

MOST_IMAGES = 64
"""One spec asks for so many at most."""


class Placed(BaseModel):
    """An adapter file with its weight, under a name for labels and messages. ``blocks`` are factors of the weight, by
    block.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    path: str
    weight: float = 1.0
    name: str = ""
    blocks: dict[str, float] = {}


class Blending(BaseModel):
    """How the adapters become one before they are drawn; see ``adapters.recipe.Blend``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: str
    rank: int = 0
    parameters: dict[str, int | float] = {}
    """Those of the method; see ``adapters.blend_methods``."""


class ImageSpec(ImageSettings):
    """Images to draw, or with ``across`` a labelled sheet. Its fields as ``ImageSettings`` are how all of them are
    drawn.
    """

    base: str = SPECS["base"].default
    vae: str = SPECS["vae"].default
    text_encoders: tuple[str, ...] = ()
    prediction: str = SPECS["prediction"].default
    zero_snr: str = SPECS["zero_snr"].default
    flow_shift: float = SPECS["flow_shift"].default
    clip_skip: int = SPECS["clip_skip"].default
    adapters: tuple[Placed, ...] = ()
    blending: Blending | None = None
    """None adds the adapters, which needs no preparation when a weight changes."""
    prompt: str
    seed: int = SPECS["preview_seed"].default
    count: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 1
    """Images with the seeds ``seed``, ``seed`` + 1, …"""
    start: FromImage | None = None
    """What they start from in place of noise."""
    first: int = 0
    """The step after which rough images are shown: what the model then expects of the final ones. 0 shows none."""
    forming: bool = False
    """Whether the image is shown as it forms."""
    across: Axis | None = None
    down: Axis | None = None
    """What the columns and rows of a sheet vary; axes know the adapters by the names of ``adapters``."""

    @property
    def images(self) -> int:
        """How many files it becomes."""
        return 1 if self.across else self.count

    @property
    def files(self) -> list[str]:
        """The paths of what it is drawn from."""
        parts = filter(None, (self.vae, *self.text_encoders))
        start = [self.start.path] if self.start else []
        return [self.base, *parts, *(one.path for one in self.adapters), *start]

    def key(self) -> str:
        """The same for specs that give the same image: a hash of the spec and of the versions of its files."""
        return _key(self.model_dump(exclude={"first", "forming"}), self.files)


class RoundTrip(BaseModel):
    """A picture of a dataset as training sees it: cropped and scaled to its bucket, through the VAE and back.

    Attributes:
        picture: its path. ``sha256`` of the file's bytes.
        bucket: width and height in pixels.
        crop: see ``dataset.preparation.Crop``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    base: str = SPECS["base"].default
    vae: str = SPECS["vae"].default
    text_encoders: tuple[str, ...] = ()
    picture: str
    sha256: str
    bucket: tuple[int, int]
    crop: tuple[float, float, float, float] | None = None

    @property
    def images(self) -> int:
        """How many files it becomes."""
        return 1

    @property
    def as_picture(self) -> Picture:
        """The picture, with its crop."""
        crop = Crop(*self.crop) if self.crop else None
        return Picture(Path(self.picture), "", 1, *self.bucket, self.sha256, crop=crop)

    def key(self) -> str:
        """The same for specs that give the same image."""
        return _key(self.model_dump(), [self.base, *filter(None, (self.vae, *self.text_encoders)), self.picture])


def _key(told: dict[str, object], paths: list[str]) -> str:
    whole = [told, __version__, [_state(path) for path in paths]]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def _state(path: str) -> list[int]:
    """Size and time of change of a file, or of each file in a model's folder; empty for the starter or a hub name,
    which do not change.
    """
    try:
        parts = [Path(path), *sorted(Path(path).iterdir())] if Path(path).is_dir() else [Path(path)]
        return [number for stat in map(os.stat, parts) for number in (stat.st_size, stat.st_mtime_ns)]
    except OSError:
        return []
