"""Random models of each family's exact shapes, for benchmarks on a GPU: what loads, steps and fills memory as the real
ones do, and draws nothing.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lora_studio.families.family import CONFIGS
from lora_studio.models.parts import read_json
from tests.models import tiny


def folder(path: Path, family: str, device: torch.device | str = "cuda", dtype: torch.dtype = torch.bfloat16) -> Path:
    """Writes a model of ``family`` (sd1, sd2, sdxl) in diffusers' layout to ``path``, made on ``device``; the VAE in
    float32, as published ones have it.
    """
    torch.manual_seed(0)
    with torch.device(device):
        made = {part: _part(family, part).to(torch.float32 if part == "vae" else dtype) for part in _parts(family)}
    return tiny.write(path, family, made)


def _parts(family: str) -> list[str]:
    return ["unet", "vae", "text_encoder", *(["text_encoder_2"] if family == "sdxl" else [])]


def _part(family: str, part: str) -> nn.Module:
    config = read_json(CONFIGS / family / f"{part}.json")
    if part == "unet":
        return UNet2DConditionModel.from_config(config)
    if part == "vae":
        return AutoencoderKL.from_config(config)
    return (CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel)(
        CLIPTextConfig.from_dict(config)
    )
