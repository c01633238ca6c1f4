"""How much faster one batch with many adapters is than single pictures: ``python tests/benchmarks/batch.py [--base
BASE] [--device DEVICE] [--precision FORMAT]``.

Eight cells of the starter, 20 steps with guidance, random rank-16 adapters on every attention module. Both methods draw
the same pictures in the same run, in turn; the best of two runs after a warm-up counts, so the ratio holds on any
machine. The goal is 2.5. "Separately" is what a user would do without the batch: the adapters stay loaded, and each
cell sets its weights and draws one picture. In bf16 a batch is rounded in another way than a single picture, which
shows at the edges of line drawings; in float32 both are equal.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from PIL import Image

from lora_studio import models
from lora_studio.adapters import Adapter, Factors
from lora_studio.config.settings import Settings
from lora_studio.models import Base, inject, modules
from lora_studio.sampling.axes import Cell, spread
from lora_studio.sampling.generate import generate
from lora_studio.sampling.grid import render
from lora_studio.sampling.image_settings import ImageSettings
from lora_studio.training import devices

CELLS, STEPS, RANK, REPEATS, PROMPT = 8, 20, 16, 2, "a cat"


def adapter(base: Base, seed: int, dora: bool = False) -> Adapter:
    """Random factors of a fiftieth of each weight's norm: visible in the picture, and not extreme."""
    source, factors = torch.Generator().manual_seed(seed), {}
    for path, module in modules.adaptable(base.models).items():
        if path.startswith("unet.") and ".attn" in path:
            weight = module.weight.detach().float().cpu()
            out, into = weight.shape[:2]
            up = torch.randn(out, RANK, generator=source) * 0.02 * weight.norm() / (out * into * RANK) ** 0.5
            factors[path] = Factors(
                torch.randn(RANK, into, generator=source), up, float(RANK), weight.norm(dim=1) * 1.02 if dora else None
            )
    return Adapter(factors)


def separately(base: Base, adapters: list[Adapter], cells: list[Cell]) -> list[Image.Image]:
    """Draws one picture after another."""
    inject.load_adapters(base, [(one, 0.0) for one in adapters])
    pictures = []
    for cell in cells:
        inject.set_weights(base, cell.weights)
        pictures += generate(base, [cell.prompt], [cell.seed], ImageSettings.of(cell))
    inject.unload_adapters(base)
    return pictures


def timed(*calls: Callable[[], list[Image.Image]]) -> tuple[list[float], list[list[Image.Image]]]:
    """Seconds of each call's best run after a warm-up, and its pictures. The calls take turns, so that other load on
    the machine affects both.
    """
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(REPEATS + 1):
        pictures = []
        for call, seen in zip(calls, times, strict=True):
            start = time.perf_counter()
            pictures.append(call())
            seen += [time.perf_counter() - start] * bool(turn)
    return [min(seen) for seen in times], pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="starter")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    machine = devices.choose(Settings().changed(device=arguments.device, precision=arguments.precision).machine)
    base = models.load(arguments.base, machine.device, machine.dtype)
    style, other, dora = adapter(base, 1), adapter(base, 2), adapter(base, 3, dora=True)
    strip = [Cell(PROMPT, 1, (weight,), 5.0, STEPS) for weight in spread(0, 1.5, CELLS)]
    cross = [Cell(PROMPT, 1, (a, b), 5.0, STEPS) for a in spread(0, 1, CELLS // 2) for b in (0.0, 1.0)]
    cases = {
        "a strip of weights": ([style], strip),
        "two adapters crossed": ([style, other], cross),
        "a strip of a DoRA": ([dora], strip),
    }
    print(f"torch {torch.__version__}, {machine.device}, {machine.dtype}, {torch.get_num_threads()} threads")
    print(f"{base.name}, {base.resolution} px, {CELLS} cells, {STEPS} steps\n")
    print(f"{'':24}{'separately':>12}{'one batch':>12}{'times as fast':>15}{'difference: most':>20}{'mean':>8}  of 255")
    for name, (adapters, cells) in cases.items():
        (apart, together), pictures = timed(
            lambda a=adapters, c=cells: separately(base, a, c), lambda a=adapters, c=cells: render(base, a, c)
        )
        difference = np.stack(
            [np.abs(np.asarray(one, int) - np.asarray(two, int)) for one, two in zip(*pictures, strict=True)]
        )
        times = f"{apart:>10.2f} s{together:>10.2f} s{apart / together:>15.2f}"
        print(f"{name:24}{times}{difference.max():>20}{difference.mean():>8.2f}", flush=True)


if __name__ == "__main__":
    main()
