"""Trains the starter's UNet and text encoder together, on the autoencoder's latents of composed scenes.

    torchrun --nproc-per-node 4 -m lora_studio.starter.make.denoiser ICONS.zip WORDS TOKENIZER OUT --seconds 840

From scratch, or with `--start` from the weights of an earlier model, whose text encoder may be shorter and shallower.
It can be started while the autoencoder trains: it compiles and records its step, then waits for `OUT/vae`.
v-prediction (Salimans and Ho 2022) on Stable Diffusion's scaled-linear betas, min-SNR weights with
gamma 5 (Hang et al. 2023), one caption in ten empty.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from . import pictures
from .autoencoder import SCALING
from .captions import Unknown, describe
from .composed import compose, main_colours
from .flat import FlatModel, Log, TimeBudget, captured, start, train
from .names import prominence
from .scenes import IconScene, Scenes

CAPTIONS = 4
"""Captions drawn for each latent."""


def build_unet() -> UNet2DConditionModel:
    """A fresh UNet with the levels, layers and module names of Stable Diffusion 1.5, 13.2 M parameters."""
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(64, 96, 128, 160), layers_per_block=2,
        cross_attention_dim=192, attention_head_dim=4, norm_num_groups=16,
    )  # fmt: skip


def build_text(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A fresh CLIP text encoder of five layers, 3.2 M parameters."""
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=192, intermediate_size=768, num_hidden_layers=5, num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length, projection_dim=192, hidden_act="quick_gelu", **ids,
    ))  # fmt: skip


def signal() -> torch.Tensor:
    """Alpha-bar of Stable Diffusion's 1000 steps: betas linear in their root from 0.00085 to 0.012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def encode_texts(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """(N, tokens) int32, padded to the tokenizer's length."""
    out = np.full((len(texts), tokenizer.model_max_length), tokenizer.pad_token_id, np.int32)
    for at in range(0, len(texts), 10_000):
        for row, ids in zip(out[at:], tokenizer(texts[at : at + 10_000], truncation=True)["input_ids"], strict=False):
            row[: len(ids)] = ids
    return torch.from_numpy(out)


def grown(text: CLIPTextModel, folder: Path) -> None:
    """Takes the weights of a text encoder that may have fewer positions and layers. A new position begins as the last
    old one; a new layer adds nothing to its input at first.
    """
    old, new = CLIPTextModel.from_pretrained(folder, local_files_only=True).state_dict(), text.state_dict()
    for name, value in new.items():
        if name not in old:
            if name.endswith(("out_proj.weight", "out_proj.bias", "fc2.weight", "fc2.bias")):
                value.zero_()
        elif "position_embedding.weight" in name and len(value) > len(old[name]):
            value.copy_(torch.cat([old[name], old[name][-1:].expand(len(value) - len(old[name]), -1)]))
        else:
            value.copy_(old[name])


def plan(
    index: list[dict], paintable: set[int], unknown: Unknown, variants: int, seed: int
) -> tuple[list[IconScene], list[str]]:
    """What one process trains on: scenes around each icon, and CAPTIONS captions for each scene."""
    draw = random.Random(seed)
    rows = [i for i, entry in enumerate(index) if entry["split"] == "train"]
    scenes = Scenes(index, rows, paintable)
    found, texts = [], []
    for i in rows:
        for _ in range(round(variants * prominence(index[i]["subject"]))):
            found.append(scenes.draw(i, draw))
            texts += [describe(found[-1], unknown, draw) for _ in range(CAPTIONS)]
    return found, texts


@torch.no_grad()
def fill(
    latents: torch.Tensor, vae: AutoencoderKL, rgba: torch.Tensor, main: torch.Tensor, scenes: list[IconScene]
) -> None:
    """Writes the scaled latents of scenes into `latents` (N, 4, 16, 16), in place; main: (icons, 3) main colours."""
    dtype, draw = next(vae.parameters()).dtype, random.Random(0)
    for at in range(0, len(scenes), 256):
        x = compose(rgba, main, scenes[at : at + 256], draw)
        z = vae.encode(x.to(dtype)).latent_dist.sample() * SCALING
        latents[at : at + 256] = z.to(latents.dtype)


def write_parts(flat: FlatModel, out: Path, state: float) -> None:
    """Saves a checkpoint: the average and the master copy in half precision, in parts small enough to send."""
    for name, values in (("average", flat.average), ("master", flat.master.data)):
        for k, part in enumerate(np.array_split(values.half().cpu().numpy(), 3)):
            np.save(out / f"{name}.{k}.new.npy", part)
            (out / f"{name}.{k}.new.npy").rename(out / f"{name}.{k}.npy")
    (out / "progress.txt").write_text(f"{state}\n")


def read_parts(out: Path, name: str) -> torch.Tensor:
    """A flat tensor that `write_parts` wrote."""
    return torch.from_numpy(np.concatenate([np.load(out / f"{name}.{k}.npy") for k in range(3)])).float()


class Denoising:
    """Everything that a training step uses, at fixed addresses on the device."""

    def __init__(self, tokenizer: CLIPTokenizer, device: torch.device, lr: float, begin: Path | None = None):
        """`begin`: a diffusers folder whose weights are taken."""
        torch.manual_seed(0)
        self.device, self.tokenizer = device, tokenizer
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.unet, self.text = build_unet(), build_text(tokenizer)
        if begin:
            old = UNet2DConditionModel.from_pretrained(begin / "unet", local_files_only=True)
            self.unet.load_state_dict(old.state_dict())
            grown(self.text, begin / "text_encoder")
        self.unet.to(device)
        self.text.to(device)
        self.flat = FlatModel([self.unet, self.text], device, self.dtype, lr, average=0.9995)
        self.predict: Callable = self.unet
        self.alpha, self.seen = signal().to(device), torch.zeros((), device=device)
        self.empty = encode_texts(tokenizer, [""]).to(device)

    def take(self, captions: list[str], count: int) -> None:
        """Encodes the captions of `count` latents, and allocates the latents."""
        self.tokens = encode_texts(self.tokenizer, captions).to(self.device).view(count, CAPTIONS, -1)
        self.latents = torch.randn(count, 4, 16, 16, device=self.device, dtype=self.dtype)

    def draw(self, b: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Random x0: (b, 4, 16, 16) scaled latents, and a caption's tokens (b, 77) for each, one in ten empty."""
        row = torch.randint(0, len(self.latents), (b,), device=self.device)
        ids = self.tokens[row, torch.randint(0, CAPTIONS, (b,), device=self.device)]
        return self.latents[row].float(), torch.where(torch.rand(b, 1, device=self.device) < 0.1, self.empty, ids)

    def step(self, b: int) -> None:
        """Forward and backward on a batch of b."""
        x0, ids = self.draw(b)
        t = torch.randint(0, 1000, (b,), device=self.device)
        a = self.alpha[t].view(b, 1, 1, 1)
        noise = torch.randn_like(x0)
        xt, v = a.sqrt() * x0 + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * x0
        out = self.predict(xt.to(self.dtype), t, self.text(input_ids=ids).last_hidden_state, return_dict=False)[0]
        snr = self.alpha[t] / (1 - self.alpha[t])
        weight = snr.clamp(max=5) / (snr + 1)
        loss = (weight * (out.float() - v).square().mean((1, 2, 3))).mean()
        self.flat.backward(loss)
        self.seen.copy_(loss.detach())

    def recorded(self, b: int, compiled: bool) -> Callable[[], None]:
        """The step as a CUDA graph, compiled if `compiled` is set and compiling works."""
        if compiled:
            self.predict = torch.compile(self.unet)
        try:
            return captured(lambda: self.step(b), self.device)
        except Exception as error:
            if not compiled:
                raise
            print(f"denoiser: continues without compiling: {error!r}"[:2000], flush=True)
            return self.recorded(b, compiled=False)


def options() -> argparse.Namespace:
    """The parsed command line."""
    ask = argparse.ArgumentParser()
    ask.add_argument("icons", type=Path)
    ask.add_argument("words", type=Path, help="a text file with one English word per line")
    ask.add_argument("tokenizer", type=Path)
    ask.add_argument("out", type=Path)
    ask.add_argument("--seconds", type=float, default=720)
    ask.add_argument("--batch", type=int, default=192, help="latents per process and step")
    ask.add_argument("--variants", type=int, default=48, help="scenes of each icon per process")
    ask.add_argument("--limit", type=int, help="use about this many icons, for a trial")
    ask.add_argument("--lr", type=float, default=6e-4)
    ask.add_argument("--compile", action="store_true")
    ask.add_argument("--start", type=Path, help="diffusers folder of a model whose weights to begin with")
    ask.add_argument("--resume", type=Path, help="folder of a checkpoint to resume from")
    return ask.parse_args()


def wait_for_autoencoder(folder: Path, device: torch.device, dtype: torch.dtype) -> AutoencoderKL:
    """Waits for the trained autoencoder, and loads it."""
    while not folder.exists():
        time.sleep(0.5)
    return AutoencoderKL.from_pretrained(folder, local_files_only=True).to(device, dtype)


def main() -> None:
    """Prepares, waits for the autoencoder, trains for the given time and writes the checkpoint's parts."""
    given = options()
    rank, world, device = start()
    work = Denoising(CLIPTokenizer.from_pretrained(given.tokenizer), device, given.lr, given.start)
    torch.manual_seed(100 + rank)
    index, rgba = pictures.load(given.icons, given.limit)
    mains, paintable = main_colours(rgba, device)
    unknown = Unknown(given.words, sorted({entry["subject"] for entry in index}))
    scenes, captions = plan(index, paintable, unknown, given.variants, 1000 + rank)
    work.take(captions, len(scenes))
    run = work.recorded(given.batch, given.compile)
    if given.resume:
        work.flat.load(*(read_parts(given.resume, name).to(device) for name in ("master", "average")))
    gone = float((given.resume / "progress.txt").read_text()) if given.resume else 0.0
    fill(work.latents, wait_for_autoencoder(given.out / "vae", device, work.dtype), rgba.to(device), mains, scenes)
    clock = TimeBudget(given.seconds, device, gone)
    log = Log("denoiser", rank, given.batch * world, device)
    train(run, work.flat, work.seen, clock, log, keep=lambda: write_parts(work.flat, given.out, clock.part))
    if rank == 0:
        write_parts(work.flat, given.out, 1.0)
    if world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
