"""Stable Diffusion 1.x and 2.x, and the built-in starter, which is a small one of the same shape.

Rombach et al. 2022, *High-Resolution Image Synthesis with Latent Diffusion Models*: one text encoder, whose last hidden
states, after its final norm, are all that the UNet is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lora_studio.families.family import Family

if TYPE_CHECKING:
    from torch import Tensor, nn

CONTEXT = 768
"""Width of SD 1.x's text features; a model of its shape with narrower ones is the starter."""
_PROJ_IN = "model.diffusion_model.input_blocks.1.1.proj_in.weight"
_KEY = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


class _StableDiffusion(Family):
    """What all of them share: four levels, attention in the first three, text as the only condition."""

    linear: bool
    """Whether the projections around the transformers are linear (2.x) or 1×1 convolutions (1.x)."""

    def owns_folder(self, unet: Mapping[str, Any]) -> bool:
        shape = (
            len(unet["block_out_channels"]) == 4
            and not unet.get("addition_embed_type")
            and not unet.get("class_embed_type")
        )
        return (
            shape
            and bool(unet.get("use_linear_projection", False)) == self.linear
            and self._fits(unet["cross_attention_dim"])
        )

    def owns_file(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        if _PROJ_IN not in shapes or _KEY not in shapes:
            return False
        return (len(shapes[_PROJ_IN]) == 2) == self.linear and self._fits(shapes[_KEY][1])

    def _fits(self, context: int) -> bool:
        return True

    def encode_text(
        self, encoders: Mapping[str, nn.Module], tokens: Sequence[Tensor], captions: Sequence[str]
    ) -> dict[str, Tensor]:
        return {"hidden": encoders["text_encoder"](tokens[0]).last_hidden_state}


class StableDiffusion1(_StableDiffusion):
    name, title, configs, linear = "sd1", "Stable Diffusion 1.x", "sd1", False
    prefixes = {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "cond_stage_model.transformer.",
    }

    def _fits(self, context: int) -> bool:
        return context >= CONTEXT


class Starter(StableDiffusion1):
    name, title = "starter", "the built-in starter"

    def _fits(self, context: int) -> bool:
        return context < CONTEXT


class StableDiffusion2(_StableDiffusion):
    """2.0 and 2.1: OpenCLIP's text encoder without its last layer; the 512 px ones predict ε, the 768 px ones v."""

    name, title, configs, linear = "sd2", "Stable Diffusion 2.x", "sd2", True
    prefixes = {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "cond_stage_model.model.",
    }
    ambiguous = True

    def native_size(self, prediction: str, latent_size: int) -> int:
        return 64 if prediction == "epsilon" else latent_size
