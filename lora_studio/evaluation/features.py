"""What pictures are looked at as, and what is kept of the base model's pictures. Letters as in ``perception``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as written
from torch import Tensor

from lora_studio import files
from lora_studio.evaluation import perception
from lora_studio.models import Base

NAMES = {
    *(f"{name} {kind}" for name in ("base", "references", "captioned") for kind in perception.Seen._fields),
    "captioned likeness",
}
"""Names of what is kept of the base model's pictures."""


def pixels(images: Iterable[Image]) -> list[Tensor]:
    """Pictures as (3, H, W) float32 in [-1, 1]."""
    return [torch.from_numpy(np.array(one)).permute(2, 0, 1).float() / 127.5 - 1 for one in images]


def latents(base: Base, pictures: Sequence[Tensor]) -> list[Tensor]:
    """The scaled latents (C, h, w) of pictures, on the CPU. One after another: the VAE needs the most memory of all."""
    return [base.encode_images(one[None])[0][0].cpu() for one in pictures]


def spread_out(count: int, most: int) -> list[int]:
    """At most ``most`` of the first ``count`` numbers, evenly spread, from the first to the last."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()


def kept(path: Path, key: str) -> dict[str, Tensor]:
    """The features that were kept under the same conditions; none if they are damaged, or of other conditions."""
    try:
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        found = read_tensors(data) if header["__metadata__"]["key"] == key else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
        return {}
    sound = found.keys() == NAMES and all(one.dtype is torch.float32 for one in found.values())
    return found if sound and all(one.isfinite().all() for one in found.values()) else {}


def keep(path: Path, features: Mapping[str, Tensor], key: str) -> None:
    """Keeps the ``features`` under the conditions ``key``. Raises OSError where the disk refuses."""
    files.write(path, written(dict(features), {"key": key}))
