"""A base model as its configurations and file headers describe it, without weights. ``models.shapes`` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from lora_studio.families import registry
from lora_studio.families.family import Family


class Text(NamedTuple):
    """A text encoder: ``width`` of its states, ``inner`` of its feed-forward layers."""

    layers: int
    width: int
    inner: int


@dataclass(frozen=True)
class Shapes:
    """A base model as far as memory is concerned."""

    family: str
    resolution: int
    """The side in pixels that it was trained at."""
    unet: dict[str, Any]
    """Its denoiser's configuration, as diffusers writes it."""
    vae: dict[str, Any]
    parameters: dict[str, int]
    """How many weights each part has, by its folder in diffusers' layout."""
    text: tuple[Text, ...] = ()
    """Its text encoders."""

    @property
    def scale(self) -> int:
        """Pixels per latent pixel, along one side."""
        return self.known.latent_scale(self.vae)

    @property
    def denoiser_parameters(self) -> int:
        """How many weights the denoiser has."""
        return self.parameters[self.known.denoiser]

    @property
    def known(self) -> Family:
        """The family that ``family`` names."""
        found = registry.named(self.family)
        assert found is not None, "shapes are read of known families alone"
        return found
