"""A picture to start from in place of noise (image-to-image; Meng et al. 2022, *SDEdit: Guided Image Synthesis and
Editing with Stochastic Differential Equations*, algorithm 1).
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from lora_studio import files
from lora_studio.errors import SettingsError
from lora_studio.language import tr
from lora_studio.models import Base
from lora_studio.sampling.denoise import Sampling, Start
from lora_studio.sampling.image_settings import FromImage


def from_image(base: Base, image: Image.Image, how: Sampling, strength: float) -> Start:
    """Where drawing over ``image`` begins. Of the image the middle is taken in the shape of the pictures, scaled to
    their size.
    """
    fitted = ImageOps.fit(image.convert("RGB"), (how.width, how.height), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(fitted)).permute(2, 0, 1).float() / 127.5 - 1
    mean, deviation = base.encode_images(pixels[None])
    return Start(mean, strength, deviation)


def opened(start: FromImage) -> Image.Image:
    """The picture.

    Raises:
        SettingsError: the file cannot be read, or is no longer the one that was chosen.
    """
    path = Path(start.path)
    try:
        data = path.read_bytes()
        if files.sha256(path) != start.sha256:
            what = tr("{name} has changed since it was chosen.", name=path.name)
            raise SettingsError(what, where=start.path, do=tr("Choose it again."))
        with Image.open(io.BytesIO(data)) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        what = tr("{name} cannot be read as a picture.", name=path.name)
        raise SettingsError(what, where=start.path, do=tr("Choose a PNG, JPEG or WebP file.")) from None
