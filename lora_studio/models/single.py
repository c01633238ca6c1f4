"""A base model from one ``.safetensors`` file in the original trainers' layout, whose configurations ship with the
studio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_studio.diffusion import registry as processes
from lora_studio.diffusion.gaussian import Epsilon, Velocity
from lora_studio.families.family import Family
from lora_studio.families.registry import of_file
from lora_studio.models import ldm_keys
from lora_studio.models.base import Base
from lora_studio.models.parts import TITLES, build, read_json
from lora_studio.models.tokenizer import Tokenizer
from lora_studio.models.weights import Source, Weights, fill, lacks

CONFIGS = Path(__file__).parent / "configs"
V_MARK, ZERO_SNR_MARK = "v_pred", "ztsnr"
"""Empty tensors that SDXL's v-predicting descendants carry, the second where their schedule ends in pure noise (Lin et
al. 2024).
"""


def read(
    path: Path, name: str, device: torch.device, dtype: torch.dtype, wanted: str, encoders_on: torch.device
) -> Base:
    """As ``lora_studio.models.load``; ``wanted`` is the setting ``prediction``.

    Weights averaged over training (``model_ema.…``) are passed over, as every program that draws with such a file does.

    Raises:
        ModelError: the file is damaged, no whole model, or of a family that is not supported.
    """
    with Weights([path]) as weights:
        family = of_file(weights.shapes, path)
        unet, vae, *encoders = (
            _part(family, part, weights, device if part == "unet" else encoders_on, dtype)
            for part in ("unet", "vae", *family.encoders)
        )
        predicts = declared(weights) if wanted == "auto" else wanted
        schedule = read_json(CONFIGS / family.configs / "scheduler.json")
        if ZERO_SNR_MARK in weights.shapes:
            schedule["rescale_betas_zero_snr"] = True
    tokenizers = [Tokenizer.shipped(pad) for pad in family.pads]
    text_encoders = dict(zip(family.encoders, encoders, strict=True))
    base = Base(
        family,
        name,
        path,
        unet,
        vae,
        text_encoders,
        tokenizers,
        family.process(schedule, predicts or Epsilon.name),
        device,
        dtype,
    )
    if not predicts and family.ambiguous:
        predicts = Epsilon.name if answers_with_noise(base) else Velocity.name
        base.process = family.process(schedule, predicts)
    unet.register_to_config(sample_size=family.native_size(base.process.name, unet.config.sample_size))
    return base


def _part(family: Family, part: str, weights: Weights, device: torch.device, dtype: torch.dtype) -> nn.Module:
    prefix = family.prefixes[part]
    config = read_json(CONFIGS / family.configs / f"{part}.json")
    shapes = {key.removeprefix(prefix): shape for key, shape in weights.shapes.items() if key.startswith(prefix)}
    try:
        config = _FIT[part.removesuffix("_2")](config, plain(shapes))
    except (KeyError, IndexError, StopIteration):
        raise lacks(weights, f"{'some weights of ' if shapes else ''}{TITLES[part]}") from None
    model = build(part, config, weights.paths[0])
    fill(
        model,
        weights,
        _sources(part, config, prefix, shapes),
        torch.float32 if part == "vae" else dtype,
        device,
        TITLES[part],
    )
    return model


_FIT: dict[str, Callable[[dict[str, Any], ldm_keys.Shapes], dict[str, Any]]] = {
    "unet": ldm_keys.fit_unet,
    "vae": ldm_keys.fit_vae,
    "text_encoder": ldm_keys.fit_text,
}


def plain(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """CLIP's names with the ``text_model.`` that some files lack."""
    return {
        f"text_model.{key}" if key.startswith(("embeddings.", "encoder.layers.", "final_layer_norm.")) else key: shape
        for key, shape in shapes.items()
    }


def _sources(
    part: str, config: Mapping[str, Any], prefix: str, shapes: Mapping[str, Any]
) -> Callable[[str], list[Source]]:
    """A weight's diffusers name -> where it may lie in the file."""

    def found(name: str) -> list[Source]:
        if part == "unet":
            return [
                ldm_keys.unet_source(
                    name, config["layers_per_block"], ["Attn" in kind for kind in config["up_block_types"]]
                )
            ]
        if part == "vae":
            return [ldm_keys.vae_source(name, len(config["block_out_channels"]))]
        if "positional_embedding" in shapes:
            return [ldm_keys.openclip_source(_full(name), config["hidden_size"])]
        return [Source(_full(name)), Source(_full(name).removeprefix("text_model."))]

    return lambda name: [Source(prefix + source.key, source.change) for source in found(name)]


def _full(name: str) -> str:
    """A text encoder's weight with the ``text_model.`` that transformers 5 dropped."""
    return name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"


def declared(weights: Weights) -> str:
    """The name of the prediction that the file's metadata or marks declare; empty where they do not."""
    name = weights.metadata.get("modelspec.prediction_type", "").lower()
    if processes.known(name):
        return processes.named(name).name
    if V_MARK in weights.shapes or weights.metadata.get("modelspec.architecture", "").endswith("-v"):
        return Velocity.name
    return ""


@torch.no_grad()
def answers_with_noise(base: Base) -> bool:
    """Whether the model predicts ε, by asking it: at the last timestep x_t is all but noise, so ε is x_t itself and v
    hardly related to it.
    """
    noise = torch.randn(1, base.unet.config.in_channels, 32, 32, generator=torch.Generator().manual_seed(0))
    last = torch.tensor([base.process.timesteps - 1], device=base.device)
    answer = base.predict(noise, last, base.encode_text([""])).cpu()
    return torch.corrcoef(torch.stack([answer.flatten(), noise.flatten()]))[0, 1].item() > 0.5
