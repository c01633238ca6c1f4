"""How fast pictures are drawn, compared with diffusers' own pipeline in the same run: ``python
tests/benchmarks/drawing.py [CASE …] [--threads N] [--models FOLDER]``.

Both have the same weights, number format, sampler (DPM++ 2M, 20 steps, guidance 5), prompts and seeds, and take turns;
the best of ``REPEATS`` runs after the first one counts, so the ratio holds on any machine. The first one is shown
beside it: of ``ours`` it is what a user waits for after the model is loaded, of the rows below it what recording adds.
``starter`` draws on the CPU; shown are wall time, and the time of the process on all cores, which other load changes
less. The others need a CUDA GPU and have random weights of the exact shapes in bf16, which are written once and kept.

``recorded`` is ours with CUDA graphs alone (``sampling.replay``), ``studio`` with all that pages and commands draw
with (``sampling.shortcuts``). ``strip`` draws one adapter at eight weights: ours in one batch, diffusers' one after
another with ``set_adapters``, once. Of a case without an adapter the parts are shown as well, as the studio does
them: texts that are new, texts that are known, denoising, its recorded steps alone, decoding. The row ``cudnn`` is a
trial: recorded steps with cuDNN's attention where it can, in place of PyTorch's first choice. ``mix`` asks the
process that draws for one picture after another of an adapter whose weight moves: rough is the time to the picture
after step ``ROUGH``, full that to the last one, both as files.

Pictures are compared in decibels (PSNR over all pixels): on a CPU with diffusers', on a GPU recorded ones with ours.
Beside that stands the most memory that was held beyond the weights.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["TQDM_DISABLE"] = os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = os.environ["DIFFUSERS_VERBOSITY"] = "error"

import diffusers
import numpy as np
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel

from lora_studio import adapters, models
from lora_studio.jobs.image_spec import ImageSpec, Placed
from lora_studio.jobs.renderer import Answer, ImageRequest
from lora_studio.jobs.renderer_worker import Studio
from lora_studio.models import Base, inject
from lora_studio.sampling import guided, kept_texts, replay, shortcuts
from lora_studio.sampling.axes import Cell, spread
from lora_studio.sampling.denoise import denoise
from lora_studio.sampling.generate import decoded, generate, sampling
from lora_studio.sampling.grid import render
from lora_studio.sampling.image_settings import ImageSettings
from lora_studio.texts.chunks import LITERAL
from tests.benchmarks.batch import adapter
from tests.models import exact

STEPS, REPEATS, WEIGHTS, ROUGH = 20, 2, 8, 5
SETTINGS = ImageSettings(sampler="dpm++", steps=STEPS, guidance=5.0, negative="blurry")
MOVED = (0.2, 0.4, 0.6, 0.8, 1.0, 0.3)
"""The weights of ``mix``, one after the other."""
CUDNN = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


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
    "starter-mix": Case("starter", 1, 128, styled=True),
    "sd1": Case("sd1", 4, 512),
    "sd1-strip": Case("sd1", WEIGHTS, 512, strip=True),
    "sdxl": Case("sdxl", 2, 1024),
    "mix": Case("sd1", 1, 512, styled=True),
}


class Time(NamedTuple):
    """Seconds: of the first run, of the best later one, and of the process in that one."""

    first: float
    best: float
    process: float

    @classmethod
    def of(cls, taken: Sequence[tuple[float, float]]) -> Time:
        """From wall and process time of each run; a single one is its own best."""
        return cls(taken[0][0], *(min(one) for one in zip(*(taken[1:] or taken), strict=True)))


def timed(*calls: Callable[[], Any], repeats: int = REPEATS) -> tuple[list[Time], list[Any]]:
    """Each call's times and last result. The calls take turns, so that other load on the machine affects all."""
    seen: list[list[tuple[float, float]]] = [[] for _ in calls]
    results: list[Any] = []
    for _ in range(repeats + 1):
        results = []
        for call, times in zip(calls, seen, strict=True):
            wall, process = time.perf_counter(), time.process_time()
            results.append(call())
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append((time.perf_counter() - wall, time.process_time() - process))
    return [Time.of(times) for times in seen], results


@cache
def loaded(family: str, folder: Path) -> tuple[Base, Any]:
    """Our base model and diffusers' pipeline of the same weights."""
    if family == "starter":
        base = models.load("starter")
        folder = base.path
    else:
        base = models.load(str(folder), "cuda", torch.bfloat16)
    kind = diffusers.StableDiffusionXLPipeline if family == "sdxl" else diffusers.StableDiffusionPipeline
    pipeline = kind.from_pretrained(str(folder), dtype=base.dtype, local_files_only=True).to(base.device)
    schedule = base.process.configuration("DPMSolverMultistepScheduler")
    pipeline.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(schedule)
    pipeline.set_progress_bar_config(disable=True)
    return base, pipeline


@cache
def style(family: str, folder: Path) -> tuple[adapters.Adapter, Path]:
    """An adapter of the model, and its file."""
    made = adapter(loaded(family, folder)[0], 1)
    path = folder.with_name(f"{family}-style") / "style.safetensors"
    return made, adapters.write(made, path, dialect="diffusers")


def ours(base: Base, case: Case, styled: adapters.Adapter | None) -> list[Image.Image]:
    """As the studio draws ``case``."""
    settings = SETTINGS.changed(width=case.side, height=case.side)
    if case.strip:
        cells = [Cell("a cat", 1, (weight,), settings.guidance, STEPS) for weight in spread(0, 1.5, WEIGHTS)]
        return render(base, [styled] if styled else [], cells, settings)
    inject.load_adapters(base, [(styled, 1.0)] if styled else [])
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


def decibels(one: Sequence[Image.Image], other: Sequence[Image.Image]) -> str:
    """PSNR of 8-bit pictures."""
    difference = [np.asarray(a, float) - np.asarray(b, float) for a, b in zip(one, other, strict=True)]
    error = float(np.square(np.stack(difference)).mean())
    return f"{10 * np.log10(255**2 / error):.1f} dB" if error else "equal"


def measure(name: str, case: Case, folder: Path) -> None:
    """Draws ``case`` in all ways and prints the times."""
    base, pipeline = loaded(case.family, folder)
    styled = None
    if case.strip or case.styled:
        styled, path = style(case.family, folder)
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="style")
    both = [lambda: ours(base, case, styled), lambda: theirs(pipeline, case)]
    if case.strip:  # diffusers' eight renders take long enough for one run to tell
        [own], [drawn] = timed(both[0])
        [other], [expected] = timed(both[1], repeats=0)
    else:
        (own, other), (drawn, expected) = timed(*both)
    if styled:
        pipeline.unload_lora_weights()
    _tell(name, "diffusers", other)
    _tell(name, "ours", own, other, decibels(drawn, expected) if base.device.type == "cpu" else "")
    if base.device.type == "cuda":
        on_a_card(name, case, base, styled, drawn, other)


def on_a_card(
    name: str, case: Case, base: Base, styled: adapters.Adapter | None, drawn: list[Image.Image], other: Time
) -> None:
    """The rows of recorded steps, against ``drawn`` without and diffusers' time."""
    ways: dict[str, tuple[Callable[[Base], object], Any]] = {"recorded": (replay.enable, nullcontext())}
    if not case.strip:
        ways["cudnn"] = replay.enable, sdpa_kernel(CUDNN, set_priority=True)
    ways["studio"] = shortcuts.take, nullcontext()
    for how, (begin, within) in ways.items():
        before = emptied(base)
        begin(base)
        with within:
            [taken], [found] = timed(lambda: ours(base, case, styled))
        failed, most = shortcuts.warning(base), (reserved(base) - before) / 2**30
        note = failed.what if failed else decibels(found, drawn)
        _tell(name, how, taken, other, f"{note}, {most:.1f} GiB")
        if how == "studio" and not case.strip:
            parts(name, case, base)
        replay.disable(base)
    kept_texts.disable(base)
    base.decode_at_once = 0
    base.vae.to(torch.float32)


def emptied(base: Base) -> int:
    """The bytes that a card holds after what can be freed was freed; what it holds at most is counted anew."""
    if base.device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_reserved()


def reserved(base: Base) -> int:
    """The most bytes that a card held since ``emptied``."""
    return torch.cuda.max_memory_reserved() if base.device.type == "cuda" else 0


def parts(name: str, case: Case, base: Base) -> None:
    """Prints the time of each part of drawing, one after the other."""
    settings = SETTINGS.changed(width=case.side, height=case.side)
    prompts, seeds, how = ["a cat"] * case.count, range(case.count), sampling(base, settings)

    def features(encode: Callable[[list[str]], guided.Text]) -> guided.PromptFeatures:
        return guided.PromptFeatures(encode(prompts), encode([settings.negative]))

    (new, known), (_, shown) = timed(
        lambda: features(base.encode_text),
        lambda: features(lambda texts: kept_texts.encode(base, texts, LITERAL, 1)),
    )
    [denoising], [latents] = timed(lambda: denoise(base, shown, seeds, how))
    first = {"noisy": latents, "timestep": base.process.scheduler(how.sampler, STEPS, base.device).timesteps[0]}
    given = first | guided.fixed(base, shown, how.guidance, latents)
    answers = replay.answers(base)

    @torch.no_grad()
    def steps() -> None:
        for _ in range(STEPS):
            answers(base, given, how.rescale)

    (alone, decoding), _ = timed(steps, lambda: decoded(base, latents))
    rows = {"new texts": new, "known texts": known, "denoising": denoising, "steps alone": alone, "decoding": decoding}
    for part, taken in rows.items():
        _tell(f"  {name}", part, taken)


def mix(name: str, case: Case, folder: Path) -> None:
    """Prints how long a moved weight takes until its picture is there, in the process that draws."""
    base = "starter" if case.family == "starter" else str(folder)
    path = style(case.family, folder)[1]
    said: list[tuple[float, float, Answer]] = []
    studio = Studio(lambda answer: said.append((time.perf_counter(), time.process_time(), answer)))
    how = {key: getattr(SETTINGS, key) for key in ("sampler", "steps", "guidance", "negative")}
    spec = ImageSpec(base=base, prompt="a cat", width=case.side, height=case.side, first=ROUGH, **how)
    studio.models.base(spec)
    found: dict[str, list[tuple[float, float]]] = {"rough": [], "full": []}
    with tempfile.TemporaryDirectory() as to:
        for number, weight in enumerate(MOVED):
            moved = spec.model_copy(update={"adapters": (Placed(path=str(path), weight=weight, name="style"),)})
            request = ImageRequest(id=number, lane="mix", spec=moved, to=str(Path(to) / f"{number}.png"))
            said.clear()
            wall, process = time.perf_counter(), time.process_time()
            studio.draw(request, lambda: False)
            drawn = [one for one in said if one[2].kind == "drawn"]
            for which, (end, used, answer) in zip(found, drawn, strict=True):
                found[which].append((end - wall, used - process))
                if which == "full" and any("recorded" in notice for notice in answer.notices):
                    print(*answer.notices, sep="\n")
    for which, taken in found.items():
        _tell(name, which, Time.of(taken))
    studio.share(alone=False)


def _tell(name: str, how: str, taken: Time, against: Time | None = None, note: str = "") -> None:
    share = "" if against is None else f"{taken.best / against.best:8.2f}{taken.process / against.process:9.2f}"
    times = f"{taken.first:9.3f}{taken.best:9.3f}{taken.process:9.3f}"
    print(f"{name:16}{how:12}{times}{share}  {note}".rstrip(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; else all that can be run")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument(
        "--models",
        type=Path,
        default=Path(tempfile.gettempdir()) / "lora-studio-exact",
        help="folder for the random models, which are created if missing",
    )
    arguments = parser.parse_args()
    began = time.perf_counter()
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads)
    able = [name for name, case in CASES.items() if case.family == "starter" or torch.cuda.is_available()]
    place = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA GPU"
    print(f"torch {torch.__version__}, {place}, {arguments.threads} threads, {STEPS} steps; seconds\n")
    print(f"{'':28}{'first':>9}{'best':>9}{'process':>9}{'share':>8}{'process':>9}", flush=True)
    for name in arguments.cases or able:
        case = CASES[name]
        folder = arguments.models / case.family
        if case.family != "starter" and not folder.exists():
            exact.folder(folder, case.family)
        (mix if name.endswith("mix") else measure)(name, case, folder)
    print(f"\n{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
