"""What presets and diffusers' training script learn of a style in equal steps, judged by the artist's own pictures of
other subjects.

    python -m tests.benchmarks.style_learning STYLES --style halftone --seeds 1

STYLES holds a folder for each style, as ``lora_studio.starter.make.unseen`` writes them. The style error is the mean of
three distances to the true picture of the same subject (``starter.make.style``, on the levels of the starter's own
encoder): 1 is the starter without an adapter, 0 the true picture after the autoencoder. Every contender is trained on
the same pictures for equally many of them, draws the same prompts with the same noise, and is compared subject by
subject. Brackets: 95 % bootstrap over subjects.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lora_studio import adapters, models, runs, starter
from lora_studio.config import presets
from lora_studio.evaluation import perception, subject
from lora_studio.models import Base, inject
from lora_studio.sampling.generate import generate
from lora_studio.sampling.image_settings import ImageSettings
from lora_studio.starter.make.evaluate import tiled
from lora_studio.starter.make.style import Distances, of_encoder, picture
from lora_studio.training import devices
from lora_studio.training.loop import train
from tests.benchmarks import diffusers_loop

RATES = (1e-4, 4e-4, 8e-4, 1.2e-3, 2e-3)
BATCH = 4
QUIET = ["preview_every=0", "checkpoint_every=0", "preview_steps=1", 'preview_prompts=["cat"]']

Contender = Callable[[Path, int, Path], Path]
"""(folder of pictures, seed, an empty folder) -> the trained adapter's file."""


def preset(name: str, assignments: list[str], seen: int, device: str) -> Contender:
    """The studio's preset, for as many steps as its batch needs to see so many pictures."""

    def learn(pictures: Path, seed: int, out: Path) -> Path:
        whole = presets.layered(name, [*QUIET, *assignments], data=str(pictures), seed=seed, device=device)
        settings = whole.changed(steps=seen // (whole.optimizer.batch * whole.optimizer.accumulate))
        run = runs.create(settings, out)
        for _ in train(run, settings):
            pass
        return run.adapter_file

    return learn


def script(rate: float, rank: int, seen: int, device: torch.device) -> Contender:
    """diffusers' script at a learning rate."""

    def learn(pictures: Path, seed: int, out: Path) -> Path:
        how = diffusers_loop.Arguments(rate, seen // BATCH, BATCH, rank)
        return diffusers_loop.train(starter.MODEL, pictures, out, how, seed, device)

    return learn


@dataclass(frozen=True)
class Figures:
    """Of one adapter: what was measured of each held-out subject.

    Attributes:
        drawn: (N, 3, 128, 128) in -1..1, what it drew.
    """

    error: np.ndarray
    own: np.ndarray
    drawn: torch.Tensor


class Truth:
    """The true pictures of a style, and what the starter makes of the same prompts."""

    @torch.no_grad()
    def __init__(self, folder: Path, base: Base):
        files = sorted((folder / "truth").glob("*.png"))
        self.base, self.far = base, Distances(of_encoder(base.vae))
        self.prompts = [file.stem.replace("-", " ") for file in files]
        self.pictures = torch.stack([picture(file) for file in files]).to(base.device)
        latents, _ = base.encode_images(self.pictures)
        self.zero = self.far(base.decode(latents) * 2 - 1, self.pictures).mean(1, keepdim=True)
        self.one = self.far(self.drawn(1), self.pictures).mean(1, keepdim=True)
        self.references = self._shown(self.prompts, (2001, 2002))
        self.level = self._level(folder / "train")

    @torch.no_grad()
    def drawn(self, seed: int, prompts: list[str] | None = None) -> torch.Tensor:
        """(N, 3, 128, 128) in -1..1 as the starter draws now, each from noise of its own."""
        prompts = prompts or self.prompts
        seeds = [seed * 1000 + i for i in range(len(prompts))]
        images = generate(self.base, prompts, seeds, ImageSettings(steps=12, guidance=4))
        return (
            torch.stack([torch.from_numpy(np.array(image)) for image in images])
            .permute(0, 3, 1, 2)
            .to(self.base.device)
            / 127.5
            - 1
        )

    @torch.no_grad()
    def figures(self, adapter: Path) -> Figures:
        """What an adapter draws, against the truth."""
        inject.load_adapters(self.base, [(adapters.read(adapter), 1.0)])
        try:
            x = self.drawn(1)
        finally:
            inject.unload_adapters(self.base)
        error = ((self.far(x, self.pictures) - self.zero) / (self.one - self.zero)).mean(0)
        own = subject.kept(self._features(x)[:, None], self.references)[:, 0]
        return Figures(error.cpu().numpy(), own.numpy(), x.cpu())

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        return perception.look(self.base, list(self.base.encode_images(x)[0].cpu())).subject

    def _shown(self, prompts: list[str], seeds: tuple[int, ...]) -> torch.Tensor:
        """(N, S, D) features of the starter's own pictures."""
        return torch.stack([self._features(self.drawn(seed, prompts)) for seed in seeds], 1)

    def _level(self, folder: Path) -> float:
        """How well the pictures to train on themselves show what their captions say (``evaluation.subject``)."""
        files = sorted(folder.glob("*.png"))
        captions = [file.with_suffix(".txt").read_text().strip() for file in files]
        own = self._features(torch.stack([picture(file) for file in files]).to(self.base.device))
        return subject.kept(own[:, None], self._shown(captions, (2001, 2002))).mean().item()


def sheet(rows: list[torch.Tensor], file: Path, columns: int = 10) -> None:
    """The first pictures of each row (N, 3, 128, 128) in -1..1 as a WebP."""
    tiled(torch.cat([row[:columns].cpu() for row in rows]), columns).save(file, quality=80, method=6)


def interval(values: np.ndarray, draws: int = 10_000) -> str:
    """Mean of (styles, subjects) with a 95 % bootstrap interval over the subjects of each style."""
    source = np.random.default_rng(5)
    chosen = source.integers(values.shape[1], size=(draws, *values.shape))
    means = np.take_along_axis(values[None], chosen, 2).mean((1, 2))
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def measured(
    contenders: dict[str, Contender], styles: list[Path], seeds: range, base: Base, sheets: Path | None
) -> Iterator[tuple[str, str, int, Figures, float]]:
    """(contender, style, seed, its figures, the style's level of subjects). A style's sheet shows the truth, what the
    starter draws, and each contender's first seed, a row each.
    """
    for style in styles:
        truth = Truth(style, base)
        rows = [truth.pictures, truth.drawn(1)]
        for name, learn in contenders.items():
            for seed in seeds:
                with tempfile.TemporaryDirectory(prefix="lora-studio-") as out:
                    found = truth.figures(learn(style / "train", seed, Path(out)))
                rows += [found.drawn] * (seed == seeds[0])
                yield name, style.name, seed, found, truth.level
        if sheets:
            sheet(rows, sheets / f"{style.name}.webp")


def table(rows: list[dict], against: str) -> str:
    """Style error, its difference to that of ``against``, and the subject's distance to its level, by contender."""
    styles = sorted({row["style"] for row in rows})

    def mean(name: str, key: str) -> np.ndarray:
        """(styles, subjects), over the seeds."""
        of = [[row[key] for row in rows if (row["contender"], row["style"]) == (name, style)] for style in styles]
        return np.array([np.mean(one, axis=0) for one in of])

    lines = [f"| contender | style error | against {against} | subject above its level |", "| --- | --- | --- | --- |"]
    for name in dict.fromkeys(row["contender"] for row in rows):
        less = interval(mean(name, "error") - mean(against, "error")) if name != against else ""
        lines.append(f"| {name} | {interval(mean(name, 'error'))} | {less} | {interval(mean(name, 'above'))} |")
    return "\n".join(lines)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("styles", type=Path)
    ask.add_argument("--style", action="append", help="only this one; can be given more than once")
    ask.add_argument("--preset", action="append", help="quick-look, if none is given")
    ask.add_argument("--set", action="append", default=[], help="KEY=VALUE for all presets")
    ask.add_argument("--rate", action="append", type=float, help="of the script; several, if none is given")
    ask.add_argument("--rank", type=int, default=8, help="of the script")
    ask.add_argument("--seeds", type=int, default=1)
    ask.add_argument("--seen", type=int, default=640, help="pictures that each may see, repeats included")
    ask.add_argument("--out", type=Path, help="file for the figures, a JSON object a line")
    ask.add_argument("--sheets", type=Path, help="folder for a sheet of each style")
    given = ask.parse_args()
    machine = devices.choose(presets.layered(None, []).machine)
    contenders = {f"script {r:g}": script(r, given.rank, given.seen, machine.device) for r in given.rate or RATES}
    contenders |= {
        name: preset(name, given.set, given.seen, machine.device.type) for name in given.preset or ["quick-look"]
    }
    base = models.load("starter", machine.device)
    folders = sorted(given.styles / name for name in given.style) if given.style else sorted(given.styles.iterdir())
    rows = []
    for name, style, seed, found, level in measured(contenders, folders, range(given.seeds), base, given.sheets):
        above = (found.own - level).round(4).tolist()
        rows.append({"contender": name, "style": style, "seed": seed, "error": found.error.tolist(), "above": above})
        print(f"{style} {name} {seed}: style error {found.error.mean():.3f}, subject {np.mean(above):+.3f}", flush=True)
        if given.out:
            with given.out.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print(table(rows, next(iter(contenders))))


if __name__ == "__main__":
    main()
