"""Which noise levels teach a style? A preset with several choices of timesteps, weights and noise, judged by the
artist's own pictures of other subjects, as ``style_learning`` judges.

    python -m tests.benchmarks.timesteps STYLES --style riso --style halftone --style flat --seeds 2 --device cuda

STYLES holds a folder for each style, as ``lora_studio.starter.make.unseen`` writes them. The table gives style errors
with 95 % paired intervals over subjects, the difference to the preset as it is, and how far subjects are from their
level. Figures are added to ``--out`` as they come; a run that was interrupted goes on there. ``--also`` compares other
settings, without those here unless ``--only`` names some.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from lora_studio import models
from lora_studio.config import presets
from lora_studio.training import devices
from tests.benchmarks.style_learning import measured, preset, table

PLAIN = "as it is"
CHOICES = {
    PLAIN: [],
    "towards noise": ["timestep_bias=noise"],
    "towards detail": ["timestep_bias=detail"],
    "style-friendly": ["timestep_bias=lognormal"],
    "log-SNR −2 ± 2": ["timestep_bias=lognormal", "timestep_mean=-2"],
    "log-SNR 2 ± 2": ["timestep_bias=lognormal", "timestep_mean=2"],
    "noisier half": ["timestep_from=0.5"],
    "less noisy half": ["timestep_to=0.5"],
    "200 to 400": ["timestep_from=0.2", "timestep_to=0.4"],
    "debiased": ["weighting=debiased"],
    "P2": ["weighting=p2"],
    "x0": ["weighting=x0"],
    "min-SNR 5": ["weighting=min-snr", "min_snr_gamma=5"],
    "multi-resolution noise": ["multires_discount=0.3"],
    "input perturbation": ["input_perturbation=0.1"],
    "Huber by SNR": ["loss=huber", "huber_schedule=snr"],
}
"""Contender -> what it changes of the preset."""


def earlier(file: Path | None) -> list[dict]:
    """The rows that an interrupted run has written."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file and file.exists() else []


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("styles", type=Path)
    ask.add_argument("--style", action="append", help="only this one; can be given more than once")
    ask.add_argument("--only", action="append", choices=CHOICES, help=f"these contenders, besides {PLAIN!r}")
    ask.add_argument("--also", action="append", default=[], metavar="NAME:KEY=VALUE,…", help="one contender more")
    ask.add_argument("--preset", default="quick-look")
    ask.add_argument("--seeds", type=int, default=2)
    ask.add_argument("--first-seed", type=int, default=0, help="to try on others what an earlier comparison found")
    ask.add_argument("--seen", type=int, default=640, help="pictures that each may see, repeats included")
    ask.add_argument("--device", default="auto", help="auto, cuda or cpu")
    ask.add_argument("--out", type=Path, help="file for the figures, a JSON object a line")
    given = ask.parse_args()
    device = devices.choose(presets.layered(None, [f"device={given.device}"]).machine).device
    also = {name: changes.split(",") for name, changes in (one.split(":", 1) for one in given.also)}
    choices, chosen = CHOICES | also, given.only or ([] if also else CHOICES)
    names = [PLAIN, *(name for name in [*chosen, *also] if name != PLAIN)]
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    base, rows = models.load("starter", device), earlier(given.out)
    folders = sorted(given.styles / name for name in given.style) if given.style else sorted(given.styles.iterdir())
    for folder in folders:
        done = {(row["contender"], row["seed"]) for row in rows if row["style"] == folder.name}
        left = {
            name: preset(given.preset, choices[name], given.seen, device.type)
            for name in names
            if any((name, seed) not in done for seed in seeds)
        }
        for name, style, seed, found, level in measured(left, [folder], seeds, base, None):
            above = (found.own - level).round(4).tolist()
            row = {"contender": name, "style": style, "seed": seed, "error": found.error.tolist(), "above": above}
            rows = [one for one in rows if (one["contender"], one["style"], one["seed"]) != (name, style, seed)] + [row]
            print(
                f"{style} {name} {seed}: style error {found.error.mean():.3f}, subject {np.mean(above):+.3f}",
                flush=True,
            )
            if given.out:
                given.out.write_text("".join(f"{json.dumps(one)}\n" for one in rows), "utf-8")
    print(table(rows, PLAIN))


if __name__ == "__main__":
    main()
