"""What a dataset is prepared for: the sizes and the tokens that a base model trains with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from lora_studio import starter
from lora_studio.config.settings import Settings
from lora_studio.config.slices import DatasetSettings
from lora_studio.families.registry import FAMILIES

if TYPE_CHECKING:
    from lora_studio.texts.tokenizer import Tokenizer


@dataclass(frozen=True)
class Target:
    """How pictures and captions are read in a run.

    Attributes:
        resolution: the side of the square whose area every picture is scaled to, in pixels.
        tokenizers: of the base model's text encoders.
    """

    resolution: int
    tokenizers: tuple[Tokenizer, ...]
    dataset: DatasetSettings
    trigger: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Target:
        """The target of a run with ``settings``.

        Raises:
            ModelError: the base model cannot be found or read.
        """
        run = settings.run
        side, own = _base(run.base, run.vae, tuple(run.text_encoders))
        return cls(settings.dataset.resolution or side, own, settings.dataset, run.trigger)

    @property
    def most_tokens(self) -> int:
        """Tokens of a caption that are read by every encoder: whole chunks."""
        return min(-(-self.dataset.caption_tokens // one.room) * one.room for one in self.tokenizers)

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, by the tokenizer that makes most of it."""
        if not texts:
            return []
        rows = [one.counts(texts) for one in self.tokenizers]
        return [max(column) for column in zip(*rows, strict=True)]


@lru_cache(maxsize=8)
def _base(base: str, vae: str, text_encoders: tuple[str, ...]) -> tuple[int, tuple[Tokenizer, ...]]:
    """The resolution and the tokenizers of a base model; no weight is read. The starter's need no torch."""
    if base == "starter":
        from lora_studio.texts.tokenizer import Tokenizer  # transformers, which takes most of a second to import

        unet, vae_config = (
            json.loads((starter.MODEL / part / "config.json").read_text("utf-8")) for part in ("unet", "vae")
        )
        family = next(one for one in FAMILIES if one.name == "starter")
        side = family.latent_side(unet) * family.latent_scale(vae_config)
        return side, (Tokenizer.of_folder(starter.MODEL / "tokenizer"),)
    from lora_studio.models import shapes  # torch, which the starter does without
    from lora_studio.models.load import tokenizers

    found = shapes.read(base, vae, text_encoders)
    return found.resolution, tuple(tokenizers(base, found.known))
