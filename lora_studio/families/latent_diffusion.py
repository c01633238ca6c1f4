"""What Stable Diffusion 1, 2 and XL share (Rombach et al. 2022, *High-Resolution Image Synthesis with Latent Diffusion
Models*): diffusers' UNet, CLIP text encoders, and the original trainers' layout of single files.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lora_studio.families import layout, ldm_keys
from lora_studio.families.family import Family
from lora_studio.families.layout import Shape, Source

if TYPE_CHECKING:
    from torch import Tensor, nn

_ATTENTION = r"attn[12]\.to_(?:q|k|v|out\.0)$"
_FEED_FORWARD = r"ff\.net\.(?:0\.proj|2)$|attentions\.\d+\.proj_(?:in|out)$"
_CONVOLUTIONS = r"resnets\.\d+\.(?:conv1|conv2|conv_shortcut)$|(?:down|up)samplers\.0\.conv$"
_TEXT_ATTENTION = r"self_attn\.(?:q|k|v|out)_proj$"
_TEXT_ALL = rf"{_TEXT_ATTENTION}|mlp\.fc[12]$"


class LatentDiffusion(Family):
    """A family whose denoiser is a ``UNet2DConditionModel``."""

    classes = {
        "unet": "diffusers.UNet2DConditionModel",
        "vae": "diffusers.AutoencoderKL",
        "text_encoder": "transformers.CLIPTextModel",
        "text_encoder_2": "transformers.CLIPTextModelWithProjection",
    }
    memory = "lora_studio.training.unet_activations.walk"
    targets = {
        "qv": r"attn[12]\.to_[qv]$",
        "attention": _ATTENTION,
        # with the projections around the transformers, as the reference trainer has it
        "attention+ff": f"{_ATTENTION}|{_FEED_FORWARD}",
        "attention+ff+conv": f"{_ATTENTION}|{_FEED_FORWARD}|{_CONVOLUTIONS}",
    }
    text_targets = {
        "qv": r"self_attn\.[qv]_proj$",
        "attention": _TEXT_ATTENTION,
        "attention+ff": _TEXT_ALL,
        "attention+ff+conv": _TEXT_ALL,  # a text encoder has no convolutions
    }
    style_blocks, subject_block = ("down_blocks.0", "down_blocks.1", "mid_block"), "up_blocks.1"
    roots = ("down_blocks", "up_blocks", "mid_block", "conv_in", "conv_out", "time_embedding", "add_embedding")
    words = (
        r"(?:down|up|transformer|input|output)_blocks|(?:mid|middle)_block|(?:time|add|class|token|position)_embedding"
        r"|time_emb(?:ed|_proj)|label_emb"
        r"|linear_[12]|conv_(?:in|out|shortcut|norm_out)|proj_(?:in|out)|to_(?:q|k|v|out)"
        r"|[qkv]_proj|out_proj|self_attn|text_(?:model|projection)|final_layer_norm|layer_norm[12]"
        r"|(?:in|out|emb)_layers|skip_connection"
    )

    @cached_property
    def modules(self) -> dict[str, Shape]:
        found = layout.unet_modules(self.config("unet"))
        for component in self.encoders:
            projected = self.classes[component].endswith("WithProjection")
            found |= layout.clip_modules(component, self.config(component), projected)
        return found

    def inpaints(self, denoiser: Mapping[str, Any]) -> bool:
        return denoiser["in_channels"] == 2 * denoiser["out_channels"] + 1

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, text: Mapping[str, Tensor], sizes: Tensor
    ) -> Tensor:
        return denoiser(noisy, timesteps, **self.conditions(text, sizes), return_dict=False)[0]

    def conditions(self, text: Mapping[str, Tensor], sizes: Tensor) -> dict[str, Any]:
        """The UNet's named arguments for ``text`` and ``sizes``, as in ``predict``."""
        return {"encoder_hidden_states": text["hidden"]}

    def fit(self, part: str, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        fitted = {"unet": ldm_keys.fit_unet, "vae": ldm_keys.fit_vae}.get(part, ldm_keys.fit_text)
        return fitted(self.config(part), shapes)

    def sources(self, part: str, name: str, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> list[Source]:
        if part == "unet":
            with_attention = ["Attn" in kind for kind in config["up_block_types"]]
            return [ldm_keys.unet_source(name, config["layers_per_block"], with_attention)]
        if part == "vae":
            return [ldm_keys.vae_source(name, len(config["block_out_channels"]))]
        return ldm_keys.text_sources(name, config, shapes)
