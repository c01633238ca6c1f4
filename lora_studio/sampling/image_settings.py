"""How pictures are drawn: what all pictures of one request have in common. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from lora_studio.config.specs import SPECS

if TYPE_CHECKING:
    from lora_studio.config.slices import PreviewSettings

Share = Annotated[float, Field(ge=0, le=1)]


class Hires(BaseModel):
    """A second pass at a larger size: the latents of the drawn picture are enlarged and denoised again.

    Attributes:
        scale: the final side as a multiple of the drawn one.
        strength: the share of the noise that the second pass begins with; 0 only enlarges.
        steps: of a whole denoising from noise, of which the second pass takes the share ``strength``; 0 takes the
            picture's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scale: Annotated[float, Field(ge=1, le=4)] = 2.0
    strength: Share = 0.5
    steps: Annotated[int, Field(ge=0, le=200)] = 0


class FromImage(BaseModel):
    """A picture that drawing starts from.

    Attributes:
        path: of the file. ``sha256`` of its bytes.
        strength: the share of the noise that is added to it: 0 keeps the picture, 1 leaves nothing of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    path: str
    sha256: str
    strength: Share = 0.6


class ImageSettings(BaseModel):
    """How pictures are drawn, whatever they show; nothing in it varies from picture to picture.

    Attributes:
        negative: what the pictures should avoid.
        steps: denoising steps.
        guidance: how strictly they follow the prompt; up to 1 the negative prompt has no effect, and it takes half the
            time.
        guidance_rescale: φ of ``guided.rescaled``; below 0 that of the base model's noise process.
        sampler: a key of ``diffusion.samplers.SAMPLERS``.
        width, height: in pixels, multiples of the VAE's scale; 0 takes the base model's own resolution. With ``hires``,
            those of the first pass.
        prompt_weights: read weights and ``BREAK`` in the prompts (``texts.prompts``), or every character as it is
            written.
        hires: the second pass, if there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    negative: str = SPECS["negative"].default
    steps: Annotated[int, Field(ge=1)] = SPECS["preview_steps"].default
    guidance: float = SPECS["guidance"].default
    guidance_rescale: float = SPECS["guidance_rescale"].default
    sampler: str = SPECS["sampler"].default
    width: int = 0
    height: int = 0
    prompt_weights: bool = SPECS["prompt_weights"].default
    hires: Hires | None = None

    @classmethod
    def of(cls, source: object) -> Self:
        """What ``source``, such as a command's options, says under the same names; the defaults for the rest."""
        return cls(**{name: getattr(source, name) for name in cls.model_fields if hasattr(source, name)})

    @classmethod
    def of_previews(cls, previews: PreviewSettings, side: int) -> Self:
        """As a run draws its previews, ``side`` pixels wide and high."""
        return cls.of(previews).changed(steps=previews.preview_steps, width=side, height=side)

    def changed(self, **changes: object) -> Self:
        """The same with other values."""
        return self.model_copy(update=changes)
