"""What it costs to measure pictures, compared with drawing them in the same run: ``python tests/benchmarks/judging.py
[CASE …] [--device DEVICE]``.

Random weights of the exact shapes, in bf16 on a GPU. Sixteen pictures are drawn as previews are (20 steps with
guidance), encoded, looked at (``evaluation.perception``) and compared with 40 training pictures
(``evaluation.copying``). The goals: measuring takes less than 10 s, and no more memory than a preview of one picture.
Memory is the most that was allocated beyond the weights. ``tiny`` is a model of a few thousand parameters, to try the
script without a GPU; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from PIL import Image
from torch import Tensor

from lora_studio import models
from lora_studio.config.settings import Settings
from lora_studio.evaluation import copying, perception
from lora_studio.evaluation.features import latents, pixels
from lora_studio.models import Base
from lora_studio.sampling.generate import generate
from lora_studio.sampling.image_settings import ImageSettings
from tests.models import exact, tiny

CASES = ("sd1", "sdxl")
PICTURES, TRAINING = 16, 40


def loaded(case: str, folder: Path, device: str) -> Base:
    """A random model of the shapes of ``case``, as judging loads it."""
    if not folder.exists():
        tiny.folder(folder, "sd1") if case == "tiny" else exact.folder(folder, case, device)
    base = models.load(str(folder), device, torch.float32 if device == "cpu" else torch.bfloat16)
    base.unet.eval()
    return base


def draw(base: Base, count: int) -> list[Image.Image]:
    """``count`` pictures, with the sampler, steps and guidance of previews."""
    how = ImageSettings.of_previews(Settings().previews, base.resolution)
    return generate(base, ["a cat"] * count, range(count), how)


def measured(base: Base, work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What ``work`` returns, its seconds, and the most GiB that it allocated beyond what was before."""
    cuda = base.device.type == "cuda"
    before = 0
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    began = time.perf_counter()
    found = work()
    if cuda:
        torch.cuda.synchronize()
    most = torch.cuda.max_memory_allocated() - before if cuda else 0
    return found, time.perf_counter() - began, most / 2**30


def case(name: str, folder: Path, device: str) -> None:
    """Prints the row of one model."""
    base = loaded(name, folder, device)
    draw(base, 1)  # kernels are chosen
    _, _, preview = measured(base, lambda: draw(base, 1))
    images, drawing, drawing_memory = measured(base, lambda: draw(base, PICTURES))
    shown = pixels(images)
    latents(base, shown[:1])
    encoded, encoding, encoding_memory = measured(base, lambda: latents(base, shown))
    perception.look(base, encoded[:1])
    _, looking, looking_memory = measured(base, lambda: perception.look(base, encoded))
    scale = copying.CopyScale([_random(base, seed) for seed in range(TRAINING)])
    _, comparing, _ = measured(base, lambda: scale.nearest(shown))
    together = encoding + looking + comparing
    print(
        f"{name:6}{base.resolution:6}{drawing:10.2f}{encoding:10.2f}{looking:10.2f}{comparing:10.2f}{together:10.2f}"
        f"{together / drawing:10.2f}{preview:12.2f}{drawing_memory:10.2f}{encoding_memory:10.2f}{looking_memory:10.2f}",
        flush=True,
    )


def _random(base: Base, seed: int) -> Tensor:
    return torch.rand(3, base.resolution, base.resolution, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE", help="sd1, sd2, sdxl or tiny")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--models",
        type=Path,
        default=Path(tempfile.gettempdir()) / "lora-studio-exact",
        help="folder for the random models, which are created if missing",
    )
    arguments = parser.parse_args()
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {name}; {PICTURES} pictures, {TRAINING} training pictures\n")
    print(f"{'':12}{'seconds':>10}{'':50}{'GiB beyond the weights':>38}")
    print(
        f"{'':6}{'px':>6}{'drawing':>10}{'encoding':>10}{'looking':>10}{'copies':>10}{'together':>10}{'share':>10}"
        f"{'one preview':>12}{'drawing':>10}{'encoding':>10}{'looking':>10}"
    )
    for one in arguments.cases:
        case(one, arguments.models / one, arguments.device)
        if arguments.device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
