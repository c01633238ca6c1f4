"""A base model from one ``.safetensors`` file in the original trainers' layout, whose configurations ship with the
studio.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from lora_studio.diffusion import registry as processes
from lora_studio.diffusion.gaussian import Epsilon, Velocity
from lora_studio.families.family import Family
from lora_studio.families.layout import Shape, Source
from lora_studio.families.registry import of_file
from lora_studio.models.base import Base
from lora_studio.models.parts import build, title
from lora_studio.models.tokenizer import Tokenizer
from lora_studio.models.weights import Weights, fill, lacks

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
        denoiser, vae, *encoders = (
            _part(family, part, weights, device if part == family.denoiser else encoders_on, dtype)
            for part in (family.denoiser, "vae", *family.encoders)
        )
        predicts = declared(weights) if wanted == "auto" else wanted
        schedule = family.config("scheduler")
        if ZERO_SNR_MARK in weights.shapes:
            schedule["rescale_betas_zero_snr"] = True
    tokenizers = [Tokenizer.shipped(pad) for pad in family.pads]
    text_encoders = dict(zip(family.encoders, encoders, strict=True))
    base = Base(
        family,
        name,
        path,
        denoiser,
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
    config = base.unet.config
    base.unet.register_to_config(sample_size=family.native_size(base.process.name, family.latent_side(config)))
    return base


def _part(family: Family, part: str, weights: Weights, device: torch.device, dtype: torch.dtype) -> nn.Module:
    prefix, shapes = family.prefixes[part], shapes_of(family, part, weights)
    try:
        config = family.fit(part, shapes)
    except (KeyError, IndexError, StopIteration):
        raise lacks(weights, f"{'some weights of ' if shapes else ''}{title(part)}") from None

    def sources(name: str) -> list[Source]:
        return [Source(prefix + one.key, one.change) for one in family.sources(part, name, config, shapes)]

    model = build(family, part, config, weights.paths[0])
    fill(model, weights, sources, torch.float32 if part == "vae" else dtype, device, title(part))
    return model


def shapes_of(family: Family, part: str, weights: Weights) -> dict[str, Shape]:
    """The shapes of the weights of ``part``, by their keys without its prefix."""
    prefix = family.prefixes[part]
    return {key.removeprefix(prefix): shape for key, shape in weights.shapes.items() if key.startswith(prefix)}


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
    noise = torch.randn(1, base.channels, 32, 32, generator=torch.Generator().manual_seed(0))
    last = torch.tensor([base.process.timesteps - 1], device=base.device)
    answer = base.predict(noise, last, base.encode_text([""])).cpu()
    return torch.corrcoef(torch.stack([answer.flatten(), noise.flatten()]))[0, 1].item() > 0.5
