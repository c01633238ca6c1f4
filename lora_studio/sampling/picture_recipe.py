"""All that makes one picture. ``picture_file`` writes it into the picture's file, ``infotext`` for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from lora_studio import adapters, files
from lora_studio.adapters import container
from lora_studio.adapters.recipe import Weight
from lora_studio.config.specs import SPECS
from lora_studio.errors import StudioError
from lora_studio.sampling.image_settings import ImageSettings, Share

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class UsedAdapter(BaseModel):
    """An adapter that a picture was drawn with.

    Attributes:
        name: its file's name without the ending.
        sha256: of its file; may be empty.
        tensors: hash of its tensors, ``sshs_model_hash``, or the beginning of it; may be empty.
        blocks: factors of the weight, by block.
    """

    model_config = _FROZEN

    name: str
    weight: Weight = 1.0
    sha256: str = ""
    tensors: str = ""
    blocks: dict[str, Weight] = {}

    @classmethod
    def of(cls, path: Path, weight: float, name: str = "", blocks: Mapping[str, float] | None = None) -> Self:
        """The adapter at ``path``, a file or a folder that peft wrote, under its own name or another one."""
        file = path / container.PEFT_MODEL if path.is_dir() else path
        try:
            tensors = adapters.header(path).metadata.get("sshs_model_hash", "")
        except StudioError:  # whoever draws with it says so
            tensors = ""
        return cls(
            name=name or path.stem, weight=weight, sha256=sha256(file), tensors=tensors, blocks=dict(blocks or {})
        )


class StartedFrom(BaseModel):
    """The picture that another was drawn from, by its file's name and SHA-256, and the share of noise put over it."""

    model_config = _FROZEN

    name: str = ""
    sha256: str = ""
    strength: Share


class PictureRecipe(ImageSettings):
    """One picture, complete enough to draw it again. ``width`` and ``height`` are those before ``hires``."""

    model_config = ConfigDict(extra="ignore")

    kind: Literal["picture"] = "picture"
    prompt: str = ""
    seed: int = SPECS["preview_seed"].default
    base: str = ""
    """The base model's file or folder, without where it is."""
    base_sha256: str = ""
    parts: dict[str, str] = {}
    """Files that completed the base model or replaced parts of it: name -> SHA-256."""
    clip_skip: int = 0
    prediction: str = SPECS["prediction"].default
    zero_snr: str = SPECS["zero_snr"].default
    flow_shift: float = SPECS["flow_shift"].default
    adapters: tuple[UsedAdapter, ...] = ()
    start: StartedFrom | None = None
    version: str = ""
    """The studio's."""


class Stated(NamedTuple):
    """What a picture's file tells of how it was made.

    Attributes:
        values: fields of ``PictureRecipe``; those that it does not tell are missing.
        left: what it tells that the studio cannot take over: name -> value.
        own: whether the studio wrote it.
    """

    values: dict[str, Any]
    left: dict[str, str]
    own: bool


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal; empty for a folder, and for what is gone."""
    try:
        stat = path.stat()
        return _hashed(path, stat.st_mtime_ns, stat.st_size) if path.is_file() else ""
    except OSError:
        return ""


@lru_cache(maxsize=256)
def _hashed(path: Path, modified: int, size: int) -> str:
    return files.sha256(path)
