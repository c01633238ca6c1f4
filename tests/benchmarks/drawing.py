"""How fast pictures are drawn, compared with diffusers' own pipeline in the same run: ``python
tests/benchmarks/drawing.py [CASE …] [--threads N]``.

Both have the same weights, number format, sampler (DPM++ 2M, 20 steps, guidance 5), prompts and seeds, and take turns;
the best of ``REPEATS`` runs after the first one counts, so the ratio holds on any machine. The first one is shown
beside it: it is what a user waits for after the model is loaded. ``starter`` draws on the CPU; shown are wall time, and
the time of the process on all cores, which other load changes less. The others need a CUDA GPU and have random weights
of the exact shapes in bf16. ``recorded`` is ours with CUDA graphs (``sampling.replay``). ``strip`` draws one adapter at
eight weights: ours in one batch, diffusers' one after another with ``set_adapters``.

On a CPU the pictures of both are compared as well, in decibels (PSNR over all pixels).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import diffusers
import numpy as np
import torch
from PIL import Image

from lora_studio import adapters, models
from lora_studio.models import Base, inject
from lora_studio.sampling import replay
from lora_studio.sampling.axes import Cell, spread
from lora_studio.sampling.generate import generate
from lora_studio.sampling.grid import render
from lora_studio.sampling.image_settings import ImageSettings
from tests.benchmarks.batch import adapter
from tests.models import exact

STEPS, REPEATS, WEIGHTS = 20, 3, 8
SETTINGS = ImageSettings(sampler="dpm++", steps=STEPS, guidance=5.0, negative="blurry")


class Case(NamedTuple):
    """What is drawn: ``count`` pictures of ``side`` pixels, or with ``strip`` one at ``WEIGHTS`` weights of an adapter;
    with ``styled`` under an adapter.
    """

    family: str
    count: int
    side: int
    strip: bool = False
    styled: bool = False


CASES = {
    "starter": Case("starter", 1, 128),
    "starter-styled": Case("starter", 1, 128, styled=True),
    "starter-strip": Case("starter", WEIGHTS, 128, strip=True),
    "sd1": Case("sd1", 4, 512),
    "sd1-strip": Case("sd1", WEIGHTS, 512, strip=True),
    "sdxl": Case("sdxl", 2, 1024),
}


class Time(NamedTuple):
    """Seconds: of the first run, of the best later one, and of the process in that one."""

    first: float
    best: float
    process: float


def timed(*calls: Callable[[], list[Image.Image]]) -> tuple[list[Time], list[list[Image.Image]]]:
    """Each call's times and last pictures. The calls take turns, so that other load on the machine affects all."""
    seen: list[list[tuple[float, float]]] = [[] for _ in calls]
    pictures: list[list[Image.Image]] = []
    for _ in range(REPEATS + 1):
        pictures = []
        for call, times in zip(calls, seen, strict=True):
            wall, process = time.perf_counter(), time.process_time()
            pictures.append(call())
            times.append((time.perf_counter() - wall, time.process_time() - process))
    found = [Time(times[0][0], *(min(one) for one in zip(*times[1:], strict=True))) for times in seen]
    return found, pictures


def loaded(family: str, folder: Path) -> tuple[Base, Any]:
    """Our base model and diffusers' pipeline of the same weights."""
    if family == "starter":
        base = models.load("starter")
        folder = base.path
    else:
        base = models.load(str(exact.folder(folder, family)), "cuda", torch.bfloat16)
    kind = diffusers.StableDiffusionXLPipeline if family == "sdxl" else diffusers.StableDiffusionPipeline
    pipeline = kind.from_pretrained(str(folder), dtype=base.dtype, local_files_only=True).to(base.device)
    schedule = base.process.configuration("DPMSolverMultistepScheduler")
    pipeline.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(schedule)
    pipeline.set_progress_bar_config(disable=True)
    return base, pipeline


def ours(base: Base, case: Case, style: adapters.Adapter | None) -> list[Image.Image]:
    """As the studio draws ``case``."""
    settings = SETTINGS.changed(width=case.side, height=case.side)
    if case.strip:
        cells = [Cell("a cat", 1, (weight,), settings.guidance, STEPS) for weight in spread(0, 1.5, WEIGHTS)]
        return render(base, [style] if style else [], cells, settings)
    inject.load_adapters(base, [(style, 1.0)] if style else [])
    try:
        return generate(base, ["a cat"] * case.count, range(case.count), settings)
    finally:
        inject.unload_adapters(base)


def theirs(pipeline: Any, case: Case) -> list[Image.Image]:
    """As diffusers draws ``case``."""
    if not case.strip:
        return _call(pipeline, range(case.count), case.side)
    drawn: list[Image.Image] = []
    for weight in spread(0, 1.5, WEIGHTS):
        pipeline.set_adapters(["style"], [weight])
        drawn += _call(pipeline, [1], case.side)
    return drawn


def _call(pipeline: Any, seeds: Sequence[int], side: int) -> list[Image.Image]:
    return pipeline(
        ["a cat"] * len(seeds),
        negative_prompt=[SETTINGS.negative] * len(seeds),
        num_inference_steps=STEPS,
        guidance_scale=SETTINGS.guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        width=side,
        height=side,
    ).images


def decibels(one: Sequence[Image.Image], other: Sequence[Image.Image]) -> float:
    """PSNR of 8-bit pictures."""
    difference = [np.asarray(a, float) - np.asarray(b, float) for a, b in zip(one, other, strict=True)]
    error = float(np.square(np.stack(difference)).mean())
    return 10 * np.log10(255**2 / error) if error else np.inf


def measure(name: str, case: Case, folder: Path) -> None:
    """Draws ``case`` in all ways and prints the times."""
    base, pipeline = loaded(case.family, folder)
    style = adapter(base, 1) if case.strip or case.styled else None
    if style:
        path = adapters.write(style, folder.parent / "style.safetensors", dialect="diffusers")
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="style")
    (own, other), (drawn, expected) = timed(lambda: ours(base, case, style), lambda: theirs(pipeline, case))
    apart = f"{decibels(drawn, expected):.1f} dB" if base.device.type == "cpu" else ""
    _tell(name, "diffusers", other)
    _tell(name, "ours", own, other, apart)
    if (replays := replay.enable(base)) is not None:
        (recorded,), _ = timed(lambda: ours(base, case, style))
        replay.disable(base)
        _tell(name, "recorded", recorded, other, replays.failed)


def _tell(name: str, how: str, taken: Time, against: Time | None = None, note: str = "") -> None:
    share = "" if against is None else f"{taken.best / against.best:8.2f}{taken.process / against.process:9.2f}"
    times = f"{taken.first:9.2f}{taken.best:9.2f}{taken.process:9.2f}"
    print(f"{name:16}{how:12}{times}{share}  {note}".rstrip(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; else all that can be run")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    able = [name for name, case in CASES.items() if case.family == "starter" or torch.cuda.is_available()]
    place = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA GPU"
    print(f"torch {torch.__version__}, {place}, {arguments.threads} threads, {STEPS} steps; seconds\n")
    print(f"{'':28}{'first':>9}{'best':>9}{'process':>9}{'share':>8}{'process':>9}")
    for name in arguments.cases or able:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, CASES[name], Path(folder) / "model")


if __name__ == "__main__":
    main()
