"""What a family of base models has to say for itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from lora_studio.diffusion.process import Process
from lora_studio.diffusion.registry import process_of

if TYPE_CHECKING:
    from torch import Tensor, nn


class Family(ABC):
    """Models of one architecture: how to tell them, where their weights lie in a file, how their conditions are made.

    One instance stands for the whole family and holds no weights.
    """

    name: ClassVar[str]
    """As ``lora_studio.adapters.detect`` names it."""
    title: ClassVar[str]
    """As people name it."""
    configs: ClassVar[str]
    """Folder in ``models/configs/`` with the configurations that a single file lacks."""
    encoders: ClassVar[dict[str, str]] = {"text_encoder": "tokenizer"}
    """Its text encoders' folders, each with its tokenizer's."""
    pads: ClassVar[tuple[int | None, ...]] = (None,)
    """For each text encoder, the token that its trainers filled up short captions with; None is the end of text."""
    prefixes: ClassVar[dict[str, str]]
    """Part -> the start of its keys in a file of the original trainers' layout."""
    ambiguous: ClassVar[bool] = False
    """True where neither keys nor shapes tell the prediction, so that the model itself has to be asked."""

    @property
    def parts(self) -> list[str]:
        """The folders that a model in diffusers' layout must hold."""
        return ["unet", "vae", *self.encoders, *self.encoders.values(), "scheduler"]

    @abstractmethod
    def owns_folder(self, unet: Mapping[str, Any]) -> bool:
        """Whether a UNet of this configuration is of this family."""

    @abstractmethod
    def owns_file(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether a single file with these keys and shapes is of this family."""

    @abstractmethod
    def encode_text(
        self, encoders: Mapping[str, nn.Module], tokens: Sequence[Tensor], captions: Sequence[str]
    ) -> dict[str, Tensor]:
        """The features of ``captions`` by name, as the denoiser wants them, batch first.

        Args:
            encoders: by the names of ``self.encoders``.
            tokens: (B, T) int64 for each encoder.
        """

    def conditions(self, text: Mapping[str, Tensor], sizes: Tensor) -> dict[str, Any]:
        """The UNet's named arguments for ``text`` (as ``encode_text`` gave it) and ``sizes`` (B, 6) float32."""
        return {"encoder_hidden_states": text["hidden"]}

    def process(self, schedule: Mapping[str, Any], prediction: str = "auto") -> Process:
        """Its noise process.

        Args:
            schedule: a model's scheduler configuration, as diffusers writes it.
            prediction: as the setting ``prediction`` names it.

        Raises:
            SettingsError: the studio cannot train it.
        """
        return process_of(schedule, prediction)

    def native_size(self, prediction: str, latent_size: int) -> int:
        """The side, in latent pixels, that a single file was trained at; ``latent_size`` is its shipped
        configuration's.
        """
        return latent_size
