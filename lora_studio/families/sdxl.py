"""Stable Diffusion XL (Podell et al. 2023): two text encoders, and a picture's sizes as further conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from lora_studio.families.family import weighed
from lora_studio.families.latent_diffusion import LatentDiffusion
from lora_studio.families.layout import Shape

if TYPE_CHECKING:
    from torch import Tensor, nn

_FOURTH_LEVEL = "input_blocks.9.0.op.weight"
"""SDXL's refiner has one, and so has every UNet that is conditioned on CLIP's picture features (unCLIP)."""


class StableDiffusionXL(LatentDiffusion):
    name, title, configs = "sdxl", "Stable Diffusion XL", "sdxl"
    version, version_start = "sdxl_base_v1-0", "sdxl"
    architecture, resolution = "stable-diffusion-xl-v1-base", 1024
    v_ends_in_noise = (
        True  # SDXL predicts ε; the descendants that predict v were trained to that end (NoobAI, Terminus)
    )
    blocks = {
        "style": ("unet.up_blocks.0.attentions.1",),
        "content": ("unet.up_blocks.0.attentions.0",),
        "layout": ("unet.down_blocks.2.attentions.1",),
    }
    """Style and content: Frenkel et al. 2024, *Implicit Style-Content Separation using B-LoRA*, §4.1. Style and layout:
    Wang et al. 2024, *InstantStyle*, §3.2.
    """
    encoders = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
    pads = (None, 0)
    prefixes = {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "conditioner.embedders.0.transformer.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    }

    kohya = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
    original_keys = True

    def owns_folder(self, denoiser: Mapping[str, Any]) -> bool:
        return denoiser.get("addition_embed_type") == "text_time" and len(denoiser["block_out_channels"]) == 3

    def owns_denoiser(self, shapes: Mapping[str, Shape]) -> bool:
        return "label_emb.0.0.weight" in shapes and _FOURTH_LEVEL not in shapes

    def encode_text(
        self, encoders: Mapping[str, nn.Module], tokens: Sequence[Tensor], captions: Sequence[str], clip_skip: int
    ) -> dict[str, Tensor]:
        """``hidden`` (B, T, D₁ + D₂): both encoders' states before their last layer; ``pooled`` (B, P): the second
        one's projected summary.

        The empty caption is all zeros, as in SDXL's own training, where dropped captions were (and in its samplers,
        where no negative prompt is). It stays zero beside a text of several chunks: zeros have no bias to pass, so
        attention to them is zero however many they are. The empty chunks that fill up other texts are encoded.
        """
        import torch  # surfaces ask a family for its name, and start before torch is loaded

        first = encoders["text_encoder"](tokens[0], output_hidden_states=True)
        second = encoders["text_encoder_2"](tokens[1], output_hidden_states=True)
        hidden, pooled = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1), second.text_embeds
        captioned = torch.tensor([bool(caption) for caption in captions], device=hidden.device)
        return {"hidden": hidden * captioned[:, None, None], "pooled": pooled * captioned[:, None]}

    def weigh(
        self, encoders: Mapping[str, nn.Module], features: Mapping[str, Tensor], weights: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Each encoder's states have a mean of their own; the summary has no weights."""
        import torch

        first = cast(Any, encoders["text_encoder"]).config.hidden_size
        states = features["hidden"].split([first, features["hidden"].shape[-1] - first], dim=-1)
        halves = [weighed(*pair) for pair in zip(states, weights, strict=True)]
        return {**features, "hidden": torch.cat(halves, dim=-1)}

    def conditions(self, text: Mapping[str, Tensor], sizes: Tensor) -> dict[str, Any]:
        return {
            "encoder_hidden_states": text["hidden"],
            "added_cond_kwargs": {"text_embeds": text["pooled"], "time_ids": sizes},
        }
