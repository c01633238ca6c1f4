"""Trains the starter's AutoencoderKL (3, 128, 128) <-> (4, 16, 16).

    torchrun --nproc-per-node 4 -m lora_studio.starter.make.autoencoder ICONS.zip OUT --seconds 300

Loss: Huber-like (L1 + L2) on colours and on edges at three scales, which holds flat colours that L1 alone
washes out, the logarithm of each picture's squared error, since decibels are what is measured, and a faint KL term.
Then the latents are whitened: mean 0, and standard deviation 1 after scaling.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn

from . import drawings, pictures
from .flat import FlatModel, Log, TimeBudget, captured, start, train
from .muon import FlatMuon
from .names import HELD_OUT_SETS

DRAWN = 0.35
"""Share of two-coloured drawings among the training pictures."""

SCALING = 0.18215
"""Stable Diffusion's factor. The latents are scaled to fit it, so code with that number built in works too."""


def build() -> AutoencoderKL:
    """A fresh autoencoder: four levels, f = 8, 4 latent channels, 3.4 M parameters."""
    return AutoencoderKL(
        block_out_channels=(32, 64, 96, 128), layers_per_block=1, norm_num_groups=16, sample_size=128,
        latent_channels=4, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=SCALING,
    )  # fmt: skip


def difference(out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """How far two batches of pictures are apart, in colours and edges at three scales; a scalar."""
    d = out.float() - x
    squared = d.square().mean((1, 2, 3))
    total = 5 * squared.mean() + 0.02 * (squared + 1e-4).log().mean()
    for _ in range(3):
        total = total + d.abs().mean() + 0.5 * (d.diff(dim=-1).abs().mean() + d.diff(dim=-2).abs().mean())
        d = F.avg_pool2d(d, 2)
    return total


@torch.no_grad()
def psnr(vae: AutoencoderKL, x: torch.Tensor) -> float:
    """Mean peak signal-to-noise ratio in dB of pictures (N, 3, 128, 128) in -1..1, through the latents' mean."""
    dtype = next(vae.parameters()).dtype
    found = []
    for part in x.split(64):
        out = vae.decode(vae.encode(part.to(dtype)).latent_dist.mean).sample.float().clamp(-1, 1)
        found.append(10 * torch.log10(4 / (out - part).square().mean((1, 2, 3))))
    return float(torch.cat(found).mean())


@torch.no_grad()
def whiten(vae: AutoencoderKL, x: torch.Tensor) -> None:
    """Shifts and scales each latent channel to mean 0 and deviation 1 / SCALING, by changing the 1 x 1 convolutions
    next to it.
    """
    dtype = next(vae.parameters()).dtype
    z = torch.cat([vae.encode(part.to(dtype)).latent_dist.mean.float() for part in x.split(64)])
    mean, gain = z.mean((0, 2, 3)), 1 / (SCALING * z.std((0, 2, 3)))
    weight, bias = _affine(vae.post_quant_conv)
    w, b = weight.float(), bias.float()
    bias.copy_(b + w[:, :, 0, 0] @ mean)
    weight.copy_(w / gain.view(1, 4, 1, 1))
    weight, bias = _affine(vae.quant_conv)
    w, b = weight.float(), bias.float()
    weight.copy_(torch.cat([w[:4] * gain.view(4, 1, 1, 1), w[4:]]))
    bias.copy_(torch.cat([(b[:4] - mean) * gain, b[4:] + 2 * gain.log()]))


def _affine(convolution: nn.Conv2d | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a convolution that `build` always makes."""
    assert convolution is not None and convolution.bias is not None
    return convolution.weight, convolution.bias


def evaluate(vae: AutoencoderKL, index: list[dict], rgba: torch.Tensor) -> dict[str, float]:
    """PSNR in dB on held-out icons, on each unseen style, and on both in other colours."""
    held = rgba[[i for i, e in enumerate(index) if e["split"] == "held"][:256]]
    found = {
        "held out": psnr(vae, pictures.plain(held)),
        "held out, on blue": psnr(vae, pictures.plain(held, (0.27, 0.47, 0.78))),
    }
    for style in HELD_OUT_SETS:
        unseen = pictures.plain(rgba[[i for i, e in enumerate(index) if e["style"] == style]])
        found |= {style: psnr(vae, unseen), f"{style}, negative": psnr(vae, -unseen)}
    return found


def save(vae: AutoencoderKL, out: Path) -> None:
    """Writes half-precision weights and configuration atomically."""
    fresh = build()
    fresh.load_state_dict({k: v.detach().float().cpu() for k, v in vae.state_dict().items()})
    half = out.with_name(out.name + ".new")
    fresh.half().save_pretrained(half)
    half.rename(out)


def step(vae: AutoencoderKL, flat: FlatModel, icons: torch.Tensor, batch: int, seen: torch.Tensor) -> None:
    """Forward and backward on fresh pictures of `icons` (N, 4, 160, 160) uint8; the loss goes into `seen`."""
    few = round(batch * DRAWN)
    x = torch.cat([pictures.varied(icons, batch - few), drawings.drawn(icons, few)])
    posterior = vae.encode(x.to(flat.work.dtype)).latent_dist
    mean, logvar = posterior.mean.float() * SCALING, posterior.logvar.float() + 2 * math.log(SCALING)
    z = posterior.mean + posterior.std * torch.randn_like(posterior.mean)
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    loss = difference(vae.decode(z).sample, x) + 1e-4 * kl
    flat.backward(loss)
    seen.copy_(loss.detach())


def finish(vae: AutoencoderKL, index: list[dict], rgba: torch.Tensor, out: Path, about: dict) -> None:
    """Whitens, measures and writes `OUT/vae` and `OUT/vae.json`."""
    out.mkdir(parents=True, exist_ok=True)
    some = rgba[[i for i, e in enumerate(index) if e["split"] == "train"][::2]]
    white = torch.ones(1, 3, device=rgba.device)
    whiten(vae, torch.cat([pictures.placed(part, white.expand(len(part), 3)) for part in some.split(64)]))
    figures = {"psnr in dB": {k: round(v, 2) for k, v in evaluate(vae, index, rgba).items()}} | about
    (out / "vae.json").write_text(json.dumps(figures, indent=2))
    print("autoencoder", json.dumps(figures), flush=True)
    save(vae, out / "vae")


def options() -> argparse.Namespace:
    """The parsed command line."""
    ask = argparse.ArgumentParser()
    ask.add_argument("icons", type=Path)
    ask.add_argument("out", type=Path)
    ask.add_argument("--seconds", type=float, default=210)
    ask.add_argument("--batch", type=int, default=48, help="pictures per process and step")
    ask.add_argument("--limit", type=int, help="use about this many icons, for a trial")
    ask.add_argument("--lr", type=float, default=1e-3)
    ask.add_argument("--start", type=Path, help="folder of an autoencoder whose weights to begin with")
    ask.add_argument("--compile", action="store_true")
    ask.add_argument("--optimizer", choices=("adamw", "muon"), default="muon")
    return ask.parse_args()


def main() -> None:
    """Trains for the given time; the first process finishes."""
    given = options()
    rank, world, device = start()
    index, rgba = pictures.load(given.icons, given.limit)
    rgba = rgba.to(device)
    icons = rgba[[i for i, e in enumerate(index) if e["split"] == "train"]]
    torch.manual_seed(0)
    vae = build()
    if given.start:
        vae.load_state_dict(AutoencoderKL.from_pretrained(given.start, local_files_only=True).state_dict())
    vae.to(device)
    kind = FlatMuon if given.optimizer == "muon" else FlatModel
    flat = kind([vae], device, torch.bfloat16 if device.type == "cuda" else torch.float32, given.lr, average=0.998)
    torch.manual_seed(100 + rank)
    seen = torch.zeros((), device=device)
    if given.compile:
        torch._inductor.config.force_layout_optimization = True  # channels last, which narrow convolutions need
        vae.encoder.compile()
        vae.decoder.compile()
    run = captured(lambda: step(vae, flat, icons, given.batch, seen), device)
    train(run, flat, seen, TimeBudget(given.seconds, device), Log("autoencoder", rank, given.batch * world, device))
    if rank == 0:
        flat.use_average()
        trained = build().to(device)
        trained.load_state_dict(vae.state_dict())
        finish(
            trained,
            index,
            rgba,
            given.out,
            {"steps": flat.steps, "batch": given.batch * world, "seconds": given.seconds},
        )
    if world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
