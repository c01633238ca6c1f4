"""Pictures and masks as training sees them: tensors at the sizes of their buckets, of the bytes that were hashed."""

from __future__ import annotations

import hashlib
import io
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lora_studio.dataset import framing, masks, pictures
from lora_studio.dataset.items import PLAIN, Alteration, Bucket, Mask, Picture
from lora_studio.dataset.preparation import Crop
from lora_studio.errors import DatasetError
from lora_studio.language import tr

_LUMA = torch.tensor([0.213, 0.715, 0.072], dtype=torch.float64)
_QUARTER_TURN = torch.tensor(
    [[-0.213, -0.715, 0.928], [0.143, 0.140, -0.283], [-0.787, 0.715, 0.072]], dtype=torch.float64
)
"""What sin(hue) is multiplied by."""


def pixels(picture: Picture, bucket: Bucket, altered: Alteration = PLAIN) -> Tensor:
    """(3, H, W) float32 in [-1, 1].

    Raises:
        DatasetError: the file changed since it was scanned, so that another picture would be kept under its hash.
    """
    data = _unchanged(picture.path, picture.sha256)
    image = framing.fit(pictures.decode(io.BytesIO(data), picture.path.name), bucket, altered, picture.crop)
    return recoloured(torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(127.5).sub_(1), altered)


def weights(mask: Mask, bucket: Bucket, scale: int, altered: Alteration = PLAIN, crop: Crop | None = None) -> Tensor:
    """The mask of a picture with this ``crop`` as (1, H/scale, W/scale) uint8: the means of the pixels behind each
    element of the latents.

    Raises:
        DatasetError: the file changed since it was scanned.
    """
    data = _unchanged(mask.path, mask.sha256)
    image = pictures.decode(io.BytesIO(data), mask.path.name, background=masks.BLACK).convert("L")
    size = bucket.width // scale, bucket.height // scale
    return torch.from_numpy(np.array(framing.fit_mask(image, bucket, size, altered, crop)))[None]


def recoloured(pixels: Tensor, altered: Alteration) -> Tensor:
    """``pixels`` (3, H, W) float32 in [-1, 1] of a copy with its colours, clipped to that range.

    Hue and saturation as ``hueRotate`` and ``saturate`` of W3C Filter Effects Module Level 1, §9.6 (feColorMatrix),
    which leave greys as they are; brightness is a factor.
    """
    if not altered.recolours:
        return pixels
    turn, greys = math.radians(altered.hue), _LUMA.expand(3, 3)
    hue = greys + math.cos(turn) * (torch.eye(3, dtype=torch.float64) - greys) + math.sin(turn) * _QUARTER_TURN
    saturation = greys + altered.saturation * (torch.eye(3, dtype=torch.float64) - greys)
    matrix = (altered.brightness * saturation @ hue).float()
    return torch.einsum("ij,jhw->ihw", matrix, (pixels + 1) / 2).clamp(0, 1) * 2 - 1


def _unchanged(path: Path, sha256: str) -> bytes:
    """The file's bytes. Raises DatasetError where they are not those that were hashed."""
    data = pictures.contents(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DatasetError(
            tr("The picture changed after the folder was read."),
            where=path,
            do=tr("Start again, and do not change the folder until training has begun."),
        )
    return data
