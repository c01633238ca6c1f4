"""The loop of diffusers' ``examples/text_to_image/train_text_to_image_lora.py``, line by line, without accelerate and
the hub: attention projections, alpha equal to the rank, Gaussian start, AdamW, a constant rate, squared error.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer


@dataclass(frozen=True)
class Arguments:
    """The script's own. ``targets`` are ends of the layers' names, of which it has no choice."""

    rate: float
    steps: int
    batch: int = 4
    rank: int = 8
    targets: tuple[str, ...] = ("to_k", "to_q", "to_v", "to_out.0")


def train(model: Path, pictures: Path, out: Path, how: Arguments, seed: int, device: torch.device) -> Path:
    """Trains on a folder of pictures with captions beside them; returns the adapter's file. ``model`` is a diffusers
    folder.
    """
    torch.manual_seed(seed)
    scheduler = DDPMScheduler.from_pretrained(model, subfolder="scheduler")
    tokenizer = CLIPTokenizer.from_pretrained(model, subfolder="tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(model, subfolder="text_encoder").to(device, torch.float32)
    vae = AutoencoderKL.from_pretrained(model, subfolder="vae").to(device, torch.float32)
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet").to(device, torch.float32)
    for part in (text_encoder, vae, unet):
        part.requires_grad_(False)
    unet.add_adapter(_config(how))
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=how.rate, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    pixels, words = _read(pictures, tokenizer, unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1))
    unet.train()
    chosen = _order(len(pixels), how.batch)
    for _ in range(how.steps):
        picked = next(chosen)
        with torch.no_grad():
            latents = vae.encode(pixels[picked].to(device)).latent_dist.sample() * vae.config.scaling_factor
            text = text_encoder(words[picked].to(device), return_dict=False)[0]
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),), device=device).long()
        noisy = scheduler.add_noise(latents, noise, timesteps)
        if scheduler.config.prediction_type == "v_prediction":
            target = scheduler.get_velocity(latents, noise, timesteps)
        else:
            target = noise
        predicted = unet(noisy, timesteps, text, return_dict=False)[0]
        F.mse_loss(predicted.float(), target.float(), reduction="mean").backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(out, unet_lora_layers=state, safe_serialization=True)
    return out / "pytorch_lora_weights.safetensors"


def _config(how: Arguments) -> LoraConfig:
    return LoraConfig(r=how.rank, lora_alpha=how.rank, init_lora_weights="gaussian", target_modules=list(how.targets))


def _read(folder: Path, tokenizer: CLIPTokenizer, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 3, side, side) in -1..1, and (N, T) tokens. Square pictures, so that the script would crop nothing."""
    files = sorted(folder.glob("*.png"))
    captions = [file.with_suffix(".txt").read_text().strip() for file in files]
    length = tokenizer.model_max_length
    tokens = tokenizer(captions, max_length=length, padding="max_length", truncation=True, return_tensors="pt")
    images = [Image.open(file).convert("RGB").resize((side, side), Image.Resampling.LANCZOS) for file in files]
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])
    return pixels.float() / 127.5 - 1, tokens.input_ids


def _order(count: int, batch: int):
    """Indices of every batch, as a shuffling DataLoader gives them."""
    while True:
        yield from torch.randperm(count).split(batch)
