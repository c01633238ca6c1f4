"""How a run reads its captions and prompts."""

from __future__ import annotations

from torch import Tensor

from lora_studio.config.settings import Settings
from lora_studio.models import Base
from lora_studio.models.texts import Reading


def of_captions(settings: Settings) -> Reading:
    """Every character as it is written, up to ``caption_tokens``."""
    return Reading(tokens=settings.dataset.caption_tokens)


def of_prompts(settings: Settings) -> Reading:
    """Whole, with weights where ``prompt_weights`` says so."""
    return Reading(weights=settings.previews.prompt_weights)


class RunEncoder:
    """What the cache asks of the base model, in a run with ``settings``: ``dataset.cache.Encoder``."""

    def __init__(self, base: Base, settings: Settings):
        self.base, self.captions, self.prompts = base, of_captions(settings), of_prompts(settings)

    @property
    def fingerprint(self) -> str:
        return self.base.fingerprint

    @property
    def scale(self) -> int:
        return self.base.scale

    @property
    def sequences(self) -> tuple[str, ...]:
        return self.base.family.sequences

    def encode_text(self, texts: list[str], prompts: bool = False) -> dict[str, Tensor]:
        return self.base.encode_text(texts, self.prompts if prompts else self.captions)

    def reading(self, text: str, prompts: bool = False) -> tuple[str | int, ...]:
        read = self.base.read(text, self.prompts if prompts else self.captions)
        if read.plain:
            return (read.length,) if read.length > 1 else ()
        return ("weights", read.length)

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.base.encode_images(pixels)
