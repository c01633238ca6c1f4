"""Stable Diffusion 1.x and 2.x, and the built-in starter, which is a small model of the same layout.

One text encoder, whose last hidden states after its final norm are all that the UNet is conditioned on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from lora_studio.families import layout
from lora_studio.families.latent_diffusion import LatentDiffusion
from lora_studio.families.layout import Shape
from lora_studio.language import tr

if TYPE_CHECKING:
    from torch import Tensor, nn

CONTEXT = 768
"""Width of SD 1.x's text features; a model of its layout with narrower ones is a starter."""
_PROJ_IN = "input_blocks.1.1.proj_in.weight"
_KEY = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


class _StableDiffusion(LatentDiffusion):
    """What all of them share: four levels, attention in the first three, text as the only condition. Which of their
    blocks carry style has not been published.
    """

    linear: bool
    """Whether the projections around the transformers are linear (2.x) or 1×1 convolutions (1.x)."""

    def owns_folder(self, denoiser: Mapping[str, Any]) -> bool:
        if denoiser.get("addition_embed_type") or denoiser.get("class_embed_type"):
            return False
        linear = bool(denoiser.get("use_linear_projection", False))
        levels, context = len(denoiser["block_out_channels"]), denoiser["cross_attention_dim"]
        return levels == 4 and linear == self.linear and self._takes(context)

    def owns_denoiser(self, shapes: Mapping[str, Shape]) -> bool:
        if _PROJ_IN not in shapes or _KEY not in shapes or "label_emb.0.0.weight" in shapes:
            return False
        return (len(shapes[_PROJ_IN]) == 2) == self.linear and self._takes(shapes[_KEY][1])

    def _takes(self, context: int) -> bool:
        """Whether its text features can be ``context`` wide."""
        return True

    def encode_text(
        self, encoders: Mapping[str, nn.Module], tokens: Sequence[Tensor], captions: Sequence[str], clip_skip: int
    ) -> dict[str, Tensor]:
        """``hidden`` (B, T, D). With a clip skip the states after an earlier layer go through the final norm, as
        NovelAI's models were trained (2022, *NovelAI Improvements on Stable Diffusion*) and A1111 and diffusers draw.
        """
        encoder = cast(Any, encoders["text_encoder"])
        if clip_skip == 1:
            return {"hidden": encoder(tokens[0]).last_hidden_state}
        states = encoder(tokens[0], output_hidden_states=True).hidden_states[-clip_skip]
        return {"hidden": getattr(encoder, "text_model", encoder).final_layer_norm(states)}


class StableDiffusion1(_StableDiffusion):
    name, title, configs, linear, clip_skips = "sd1", "Stable Diffusion 1.5", "sd1", False, (1, 2)
    version, architecture, resolution = "sd_v1", "stable-diffusion-v1", 512
    prefixes = {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "cond_stage_model.transformer.",
    }

    def _takes(self, context: int) -> bool:
        return context >= CONTEXT


class StableDiffusion2(_StableDiffusion):
    """2.0 and 2.1: OpenCLIP's text encoder without its last layer; the 512 px ones predict ε, the 768 px ones v."""

    name, title, configs, linear = "sd2", "Stable Diffusion 2", "sd2", True
    version, version_start, architecture, resolution = "sd_v2_v", "sd_v2", "stable-diffusion-v2-768-v", 768
    prefixes = {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "cond_stage_model.model.",
    }

    def marks(self, noise: bool) -> tuple[str, str]:
        return ("sd_v2", "stable-diffusion-v2-512") if noise else super().marks(noise)

    def native_size(self, prediction: str, latent_side: int) -> int:
        return 64 if prediction == "epsilon" else latent_side


_FIRST = {"block_out_channels": [64, 96, 128, 160], "cross_attention_dim": 192, "layers_per_block": 2}
"""The configuration of the first starter's UNet. It has no ``_name_or_path``, which the present one's has."""


def _is_first(denoiser: Mapping[str, Any]) -> bool:
    return not denoiser.get("_name_or_path") and all(denoiser.get(key) == value for key, value in _FIRST.items())


class Starter(StableDiffusion1):
    """Any narrow model of SD 1.x's layout; the built-in one first of all."""

    name, title, heading = "starter", tr("the built-in starter"), tr("Built-in starter")
    version, architecture, resolution = "lora_studio_starter_2", "lora-studio-starter-2", 128

    def owns_folder(self, denoiser: Mapping[str, Any]) -> bool:
        return super().owns_folder(denoiser) and not _is_first(denoiser)

    def _takes(self, context: int) -> bool:
        return context < CONTEXT

    @cached_property
    def modules(self) -> dict[str, Shape]:
        """SD 1.x's, and the shortcut of a level whose width grows where SD 1.x's stays the same."""
        width = self.config("unet")["block_out_channels"][-1]
        return super().modules | {"unet.down_blocks.3.resnets.0.conv_shortcut": (width, width, 1, 1)}

    def fits(self, path: str, shape: Shape) -> bool:
        return path in self.modules and layout.narrower(shape, self.modules[path])


class FirstStarter(Starter):
    """The starter before the present one, which has the same UNet with other weights. Its adapters are known by their
    headers, its folder by a configuration without a name.
    """

    name, title, successor = "starter1", tr("the studio's first starter"), "starter"
    heading = tr("Studio's first starter")
    version, architecture = "lora_studio_starter", "lora-studio-starter"

    def owns_folder(self, denoiser: Mapping[str, Any]) -> bool:
        return _is_first(denoiser) and StableDiffusion1.owns_folder(self, denoiser)

    def owns_file(self, shapes: Mapping[str, Shape]) -> bool:
        return False

    def claimed_by(self, version: str, architecture: str) -> bool:
        return version == self.version or architecture.removesuffix("/lora") == self.architecture
