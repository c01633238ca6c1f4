"""Measures how well adapters of unseen styles draw subjects that they were not trained on.

    python -m lora_studio.starter.make.style STYLES ADAPTERS MODEL PARTS ICONS.zip

`STYLES` holds one folder per style with `truth/<subject>.png`: pictures by the same artist of subjects that were not
trained on. `ADAPTERS` holds the adapters `<style>-<seed>.safetensors`. The style error is the mean of three distances
to the true picture of the same subject: statistics and Gram matrices of the classifier's features (Gatys et al. 2016),
and the sorted projections of 7 x 7 patches (sliced Wasserstein distance). Each is scaled so that the model without an
adapter is 1 and the true picture after its autoencoder is 0; `--scale` takes another model for that. Prints the
figures as JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from PIL import Image
from torch import nn

from .evaluate import Judge, generate, pipeline
from .pictures import SIDE

TRIGGER = "zorp"
"""A word that no adapter was trained on, for the second measurement of the subject."""


def picture(file: Path) -> torch.Tensor:
    """(3, 128, 128) in -1..1."""
    image = Image.open(file).convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).float().permute(2, 0, 1) / 127.5 - 1


Levels = Callable[[torch.Tensor], list[torch.Tensor]]
"""Feature maps of pictures (N, 3, 128, 128) in -1..1, from fine to coarse."""


def of_classifier(net: nn.Sequential) -> Levels:
    """The first three levels of the classifier."""

    def levels(x: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for layer in list(net)[:18]:
            x = layer(x)
            if isinstance(layer, nn.GELU):
                found.append(x)
        return found

    return levels


def of_encoder(vae: AutoencoderKL) -> Levels:
    """The first four levels of an autoencoder's encoder: no other model is needed."""

    def levels(x: torch.Tensor) -> list[torch.Tensor]:
        found = [vae.encoder.conv_in(x)]
        for block in list(vae.encoder.down_blocks)[:3]:
            found.append(block(found[-1]))
        return found

    return levels


class Distances:
    """The three distances of pictures (N, 3, 128, 128) in -1..1 to others, one by one: (3, N)."""

    def __init__(self, levels: Levels):
        self.levels = levels
        rays = torch.randn(32, 3 * 49, generator=torch.Generator().manual_seed(0))
        self.rays = rays / rays.norm(dim=1, keepdim=True)

    def features(self, x: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
        """Channel statistics and Gram matrices of the first levels, and sorted projections of patches."""
        statistics, grams = [], []
        for level in self.levels(x):
            flat = level.flatten(2)
            statistics.append(torch.cat([flat.mean(2), flat.std(2)], 1))
            grams.append((flat @ flat.transpose(1, 2) / flat.shape[2]).flatten(1))
        patches = F.unfold(x, 7, stride=2).transpose(1, 2) @ self.rays.T.to(x.device)
        return statistics, grams, patches.sort(1).values.flatten(1)

    def __call__(self, x: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        mine, true = self.features(x), self.features(truth)
        found = []
        for some, others in zip(mine[:2], true[:2], strict=True):
            pairs = zip(some, others, strict=True)
            found.append(sum((a - b).norm(dim=1) / b.norm(dim=1).mean() for a, b in pairs) / len(some))
        return torch.stack([*found, (mine[2] - true[2]).abs().mean(1)])


class Truth:
    """The true pictures of a style, and the scale of its errors."""

    def __init__(self, folder: Path, pipe: StableDiffusionPipeline, far: Distances):
        files = sorted((folder / "truth").glob("*.png"))
        self.far, self.names = far, [file.stem for file in files]
        self.prompts = [name.replace("-", " ") for name in self.names]
        self.pictures = torch.stack([picture(file) for file in files])
        latents = pipe.vae.encode(self.pictures.to(pipe.device)).latent_dist.mean
        best = pipe.vae.decode(latents).sample.clamp(-1, 1).cpu()
        self.zero = far(best, self.pictures).mean(1, keepdim=True)
        self.one = far(generate(pipe, self.prompts, seed=7), self.pictures).mean(1, keepdim=True)

    def error(self, x: torch.Tensor) -> float:
        """The style error of pictures of `prompts`."""
        return float(((self.far(x, self.pictures) - self.zero) / (self.one - self.zero)).mean())


def subject(judge: Judge, x: torch.Tensor, names: list[str]) -> float:
    """Share of pictures whose likeliest subject is the right one."""
    best = judge.reads(x).argmax(1).tolist()
    return sum(judge.subjects[i] == name for i, name in zip(best, names, strict=True)) / len(names)


def measure(pipe: StableDiffusionPipeline, judge: Judge, truth: Truth, adapter: Path) -> dict[str, float]:
    """The figures of one adapter."""
    pipe.load_lora_weights(str(adapter))
    x = generate(pipe, truth.prompts, seed=7)
    triggered = generate(pipe, [f"{TRIGGER}, {prompt}" for prompt in truth.prompts], seed=7)
    pipe.unload_lora_weights()
    figures = {
        "style error": truth.error(x),
        "subject": subject(judge, x, truth.names),
        "subject with an unknown word first": subject(judge, triggered, truth.names),
    }
    return {name: round(value, 3) for name, value in figures.items()}


def main() -> None:
    """Prints the figures of every adapter."""
    ask = argparse.ArgumentParser()
    for name in ("styles", "adapters", "model", "parts", "icons"):
        ask.add_argument(name, type=Path)
    ask.add_argument("--scale", type=Path, help="model that is 1 without an adapter")
    given = ask.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipe = pipeline(given.model, device)
    scale = pipeline(given.scale, device) if given.scale else pipe
    judge = Judge(given.icons, given.parts / "classifier.pt")
    figures = {}
    for folder in sorted(path for path in given.styles.iterdir() if path.is_dir()):
        truth = Truth(folder, scale, Distances(of_classifier(judge.net)))
        for adapter in sorted(given.adapters.glob(f"{folder.name}-*.safetensors")):
            figures[adapter.stem] = measure(pipe, judge, truth, adapter)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    with torch.no_grad():
        main()
