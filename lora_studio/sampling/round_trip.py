"""A picture through the VAE and back: what of it reaches the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from lora_studio.dataset import fitted
from lora_studio.dataset.items import Bucket, Picture
from lora_studio.models import autoencode
from lora_studio.models.load import autoencoder


class VaeRoundTrip:
    """The VAE of a base model, in memory.

    Args:
        base, vae, text_encoders: as the settings of these names.

    Raises:
        ModelError: as ``models.load.autoencoder``.
    """

    def __init__(self, base: str, device: torch.device, vae: str = "", text_encoders: Sequence[str] = ()):
        self._vae = autoencoder(base, device, vae, text_encoders)

    @torch.no_grad()
    def seen(self, picture: Picture, bucket: Bucket) -> Image.Image:
        """The picture as training reads it, of the size of ``bucket``, encoded to the mean of its latents and decoded.

        Raises:
            DatasetError: the picture cannot be read, or changed after the folder was read.
        """
        pixels = fitted.pixels(picture, bucket)[None]
        mean, _ = autoencode.encode(self._vae, pixels)
        back = autoencode.decode(self._vae, mean)[0].clamp(-1, 1)
        return Image.fromarray(back.add(1).mul(127.5).round().byte().permute(1, 2, 0).cpu().numpy())
