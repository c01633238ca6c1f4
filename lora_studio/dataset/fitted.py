"""Pictures and masks as training sees them: tensors at the sizes of their buckets, of the bytes that were hashed."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lora_studio.dataset import buckets, masks, pictures
from lora_studio.dataset.items import Bucket, Mask, Picture
from lora_studio.dataset.preparation import Crop
from lora_studio.errors import DatasetError


def pixels(picture: Picture, bucket: Bucket, flip: bool) -> Tensor:
    """(3, H, W) float32 in [-1, 1].

    Raises:
        DatasetError: the file changed since it was scanned, so that another picture would be kept under its hash.
    """
    data = _unchanged(picture.path, picture.sha256)
    image = buckets.fit(pictures.decode(io.BytesIO(data), picture.path.name), bucket, flip, picture.crop)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(127.5).sub_(1)


def weights(mask: Mask, bucket: Bucket, flip: bool, scale: int, crop: Crop | None = None) -> Tensor:
    """The mask of a picture with this ``crop`` as (1, H/scale, W/scale) uint8: the means of the pixels behind each
    element of the latents.

    Raises:
        DatasetError: the file changed since it was scanned.
    """
    data = _unchanged(mask.path, mask.sha256)
    image = pictures.decode(io.BytesIO(data), mask.path.name, background=masks.BLACK).convert("L")
    size = bucket.width // scale, bucket.height // scale
    return torch.from_numpy(np.array(buckets.fit_mask(image, bucket, size, flip, crop)))[None]


def _unchanged(path: Path, sha256: str) -> bytes:
    """The file's bytes. Raises DatasetError where they are not those that were hashed."""
    data = pictures.contents(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DatasetError(
            "The picture changed after the folder was read.",
            where=path,
            do="Start again, and do not change the folder until training has begun.",
        )
    return data
