"""The time of a training step on a GPU, compared with a straightforward loop in the same run: ``python
tests/benchmarks/train_step.py [CASE …] [--set KEY=VALUE]``.

Random weights of the exact shapes, attention targets, rank 16. The straightforward loop is what most scripts do: UNet
in bf16, adapters in float32 under autocast, cached inputs, fused AdamW, one operation at a time. "Busy" is the sum of a
step's kernel times, by PyTorch's profiler; "wall" is wall time, including the preparation of batches. The share of the
matrix peak counts the products of the forward pass, and those of the backward pass towards activations and adapters, at
the rate by wall time; the peak is that of an 8192³ bf16 product measured just before. ``--profile`` prints where our
time goes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lora_studio import models
from lora_studio.config.settings import Settings
from lora_studio.dataset.batch_sampler import BatchSampler
from lora_studio.dataset.items import Bucket, Picture, Sample
from lora_studio.models import Base, fused, inject
from lora_studio.optim import build
from lora_studio.training import devices, stepper
from lora_studio.training.batches import Batches
from tests.models import exact

CASES = {
    "sd1-b1": ("sd1", 1),
    "sd1-b4": ("sd1", 4),
    "sd1-b16": ("sd1", 16),
    "sdxl-b1": ("sdxl", 1),
    "sdxl-b4": ("sdxl", 4),
}
TERAFLOP = {"sd1": 1.72, "sdxl": 14.2}
"""Of one image's step, forward and backward."""
GOALS = {"sd1-b4": (0.65, 18), "sd1-b16": (0.85, 24), "sdxl-b1": (0.75, 21), "sdxl-b4": (0.70, 33), "sd1-b1": (0.85, 0)}
"""Case -> highest share of the straightforward loop's busy time, lowest share of the matrix peak in per cent."""
STEPS, PROFILED = 20, 3
CLASSES = {
    "attention": ("flash", "fmha", "attention", "sdpa"),
    "convolutions": ("fprop", "dgrad", "conv", "cudnn"),
    "products": ("gemm", "nvjet", "cutlass", "splitk", "gemv", "cublas"),
    "norms, GEGLU, sums": (
        "_moments",
        "_statistics",
        "_normalize",
        "_gradient",
        "_means",
        "_layer_norm",
        "_geglu",
        "_add",
    ),
    "layout, copies": ("copy", "cat", "nchw", "nhwc", "transpose", "memcpy", "memset"),
}
"""Class of kernel -> parts of its name. The first class that matches counts; without a match a kernel is pointwise."""


class RandomCache:
    """A cache of two random pictures, in the shapes that the base model expects."""

    def __init__(self, base: Base, side: int):
        source = torch.Generator().manual_seed(0)
        latent = (4, side // base.scale, side // base.scale)
        self.mean, self.deviation = torch.randn(2, *latent, generator=source), torch.full((2, *latent), 0.05)
        self.features = {"hidden": torch.randn(77, base.unet.config.cross_attention_dim, generator=source)}
        if base.family.name == "sdxl":
            self.features["pooled"] = torch.randn(1280, generator=source)
        self.side, self.samples = side, []

    def latents(self, draws, generator) -> Tensor:
        rows = [draw.picture for draw in draws]
        return self.mean[rows] + self.deviation[rows] * torch.randn(self.mean[rows].shape, generator=generator)

    def text(self, draws) -> dict[str, Tensor]:
        return {name: torch.stack([feature] * len(draws)) for name, feature in self.features.items()}

    def captions(self, draws) -> list[str]:
        return ["a"] * len(draws)

    def masks(self, draws, like) -> None:
        return None

    def inpainting(self, draws) -> None:
        return None

    def sizes(self, draws) -> Tensor:
        return torch.tensor([[self.side, self.side, 0, 0, self.side, self.side]] * len(draws), dtype=torch.float32)


def loaded(folder: Path, settings: Settings) -> tuple[Base, Batches]:
    """The base model with an adapter and with its encoders on the CPU, and batches for it."""
    base = models.load(str(folder), "cuda", torch.bfloat16, quantize=settings.machine.quantize)
    base.encoders_to("cpu")
    inject.add_adapter(base, settings.adapter, 0)
    base.unet.train()
    side, batch = base.resolution, settings.optimizer.batch
    sample = Sample(Picture(Path(), "", batch, side, side, ""), Bucket(side, side), [""])
    batches = BatchSampler([sample] * 2, batch, 0)
    return base, Batches(RandomCache(base, side), batches, base.process, settings.run.seed, pinned=True)


def straightforward(base: Base, batches: Batches, settings: Settings) -> Callable[[int], None]:
    fused.disable(base.unet)
    base.unet.to(memory_format=torch.contiguous_format)
    parameters = list(inject.trainable(base).values())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    ready = [batches.draw(number).to(torch.device("cuda")) for number in range(2)]

    def work(number: int) -> None:
        batch = ready[number % 2]
        with torch.autocast("cuda", torch.bfloat16):
            noisy = base.process.add_noise(batch.x0, batch.noise, batch.timesteps)
            text = {name: feature.bfloat16() for name, feature in batch.text.items()}
            predicted = base.family.predict(base.unet, noisy.bfloat16(), batch.timesteps, text, batch.sizes)
            loss = F.mse_loss(predicted.float(), batch.noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return work


def ours(base: Base, batches: Batches, settings: Settings) -> Callable[[int], None]:
    machine = devices.choose(settings.machine)
    built = build.flat_optimizer(
        inject.trainable(base).items(), settings.optimizer, settings.run.steps, machine.copies(settings.adapter)
    )
    runner = stepper.choose(base, settings, machine, built)

    def work(number: int) -> None:
        build.set_rate(built.optimizer, settings.optimizer, number, settings.run.steps)
        if not runner.next_started:
            runner.backward(batches.take(number))
        batches.prepare(number + 1)
        runner.update(batches.take(number + 1) if runner.overlaps else None)
        if runner.failed:
            raise SystemExit(f"CUDA graphs could not be captured: {runner.failed}")

    return work


def measured(work: Callable[[int], None], show: bool = False) -> tuple[float, float, float]:
    """Milliseconds of a step, wall and busy; seconds of the first three steps, in which kernels are chosen and graphs
    captured.
    """
    began = time.perf_counter()
    for number in range(3):
        work(number)
    torch.cuda.synchronize()
    first, began = time.perf_counter() - began, time.perf_counter()
    for number in range(STEPS):
        work(number)
    torch.cuda.synchronize()
    wall = 1e3 * (time.perf_counter() - began) / STEPS
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for number in range(PROFILED):
            work(number)
        torch.cuda.synchronize()
    kernels: dict[str, float] = defaultdict(float)
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            kernels[event.name] += event.self_device_time_total / 1e3 / PROFILED
    if show:
        _show(kernels)
    return wall, sum(kernels.values()), first


def _show(kernels: dict[str, float]) -> None:
    """Prints the milliseconds of a step by class of kernel, and of the longest kernels."""
    classes: dict[str, float] = defaultdict(float)
    for name, took in kernels.items():
        classes[
            next((kind for kind, words in CLASSES.items() if any(word in name.lower() for word in words)), "pointwise")
        ] += took
    print(
        "      " + ", ".join(f"{kind} {took:.2f}" for kind, took in sorted(classes.items(), key=lambda item: -item[1]))
    )
    for name, took in sorted(kernels.items(), key=lambda item: -item[1])[:30]:
        print(f"      {took:8.3f} ms  {name[:150]}")


def peak() -> float:
    """TFLOP/s of an 8192³ bf16 product."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - began) / 1e12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--models",
        type=Path,
        default=Path(tempfile.gettempdir()) / "lora-studio-exact",
        help="folder for the random models, which are created if missing",
    )
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--alone", action="store_true", help="skip the straightforward loop")
    arguments = parser.parse_args()
    changes = dict(pair.split("=", 1) for pair in arguments.set)
    top = peak()
    machine = f"{torch.cuda.get_device_name()}, matrix peak {top:.0f} TFLOP/s"
    print(f"torch {torch.__version__}, {machine}; ms a step {changes or ''}\n")
    ratios = f"{'busy':>9}{'goal':>6}{'wall/busy':>11}{'images/s':>10}{'of peak':>9}{'goal':>6}{'reserved':>10}"
    print(f"{'':9}{'straightforward':>24}{'ours':>34}{ratios}")
    print(f"{'':9}{'wall':>12}{'busy':>12}{'wall':>12}{'busy':>12}{'first 3':>10}")
    for case in arguments.cases or CASES:
        family, batch = CASES[case]
        folder = arguments.models / family
        if not folder.exists():
            exact.folder(folder, family)
        settings = Settings(batch=batch, rank=16).changed(**changes)
        theirs = (float("nan"),) * 3
        if not arguments.alone:
            base, batches = loaded(folder, settings)
            theirs = measured(straightforward(base, batches, settings))
            del base, batches
            torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        base, batches = loaded(folder, settings)
        own = measured(ours(base, batches, settings), arguments.profile)
        rate, goal = batch / own[0] * 1e3, GOALS[case]
        print(
            f"{case:9}{theirs[0]:12.1f}{theirs[1]:12.1f}{own[0]:12.1f}{own[1]:12.1f}{own[2]:9.1f}s"
            f"{own[1] / theirs[1]:9.2f}{goal[0]:6.2f}{own[0] / own[1]:11.3f}{rate:10.1f}"
            f"{rate * TERAFLOP[family] / top:9.1%}{goal[1]:5}%{torch.cuda.max_memory_reserved() / 2**30:8.2f} G",
            flush=True,
        )
        del base, batches
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
