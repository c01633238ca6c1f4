"""What each blend method does to two styles: ``python tests/benchmarks/blends.py OUTPUTS [FIRST] [SECOND]``.

FIRST and SECOND are runs in OUTPUTS on one base model (``ink-icons`` and ``blueprint`` by default, the sample styles),
with saved states of FIRST every 20 steps. Every blend draws the same 8 prompts, which neither run has seen, with the
same 2 seeds. The pictures are measured as ``judge`` does: how much of each style they have, in per cent, how well they
show their prompts, and how far they moved from the base model's. Brackets are 95 % intervals of the paired bootstrap;
below each row the differences from the plain average.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

import numpy as np  # noqa: E402

from lora_studio import adapters, runs  # noqa: E402
from lora_studio.adapters import averaging, blend, recipe  # noqa: E402
from lora_studio.evaluation import judging, subjects  # noqa: E402
from lora_studio.evaluation.bench import Bench  # noqa: E402
from lora_studio.runs import Run, keeping  # noqa: E402

PROMPTS, SEEDS, RANK = 8, 2, 16
AVERAGE = "average"
STYLES = ("first", "second")
Result = TypeVar("Result")
Parts = Sequence[tuple[Path, float]]


def finished(work: Generator[Any, None, Result]) -> Result:
    """What a generator of events returns."""
    try:
        while True:
            next(work)
    except StopIteration as end:
        return end.value


def bench(run: Run, prompts: Sequence[str]) -> Bench:
    """The bench of a run, prepared, in a folder of its own."""
    made = finished(judging.bench_of(run, prompts, SEEDS)).elsewhere(Path(tempfile.mkdtemp(prefix="blends-")))
    for _ in made.prepare():
        pass
    return made


def blended(parts: Parts, method: str, **parameters: float) -> blend.Blended:
    read = [adapters.read(path) for path, _ in parts]
    named = [blend.ingredient(path.stem, weight, one) for (path, weight), one in zip(parts, read, strict=True)]
    return blend.blend(recipe.blend(method=method, ingredients=named, **parameters), read)


def averaged(run: Run, width: float) -> blend.Blended:
    steps = sorted(keeping.states(run))
    files = [keeping.state_file(run, step) for step in steps]
    return blended(list(zip(files, averaging.weights(steps, width), strict=True)), "svd")


def made(first: Run, second: Run) -> dict[str, blend.Blended]:
    """Every blend by its name."""
    one, other = first.adapter_file, second.adapter_file
    half, whole = [(one, 0.5), (other, 0.5)], [(one, 1.0), (other, 1.0)]
    states = [keeping.state_file(first, step) for step in sorted(keeping.states(first))[-3:]]
    four = [(path, 1.0) for path in (*states, other)]
    return {
        AVERAGE: blended(half, "exact"),
        f"{first.name} alone": blended([(one, 1.0)], "exact"),
        f"{second.name} alone": blended([(other, 1.0)], "exact"),
        "sum, 1 and 1": blended(whole, "exact"),
        f"svd, rank {RANK}": blended(half, "svd", rank=RANK),
        f"ctm, rank {RANK}": blended(half, "ctm", rank=RANK),
        "ties": blended(whole, "ties"),
        "dare": blended(half, "dare"),
        "svc, 1 and 1": blended(whole, "svc"),
        "stock": blended(whole, "stock"),
        "slerp": blended(whole, "slerp"),
        "average of three states and the other": blended([(path, 0.25) for path, _ in four], "exact"),
        "median of three states and the other": blended(four, "median"),
        "states, width 0.1": averaged(first, 0.1),
        "states, width 0.25": averaged(first, 0.25),
    }


def measured(one: blend.Blended, first: Bench, second: Bench) -> dict[str, tuple[float, np.ndarray]]:
    """Each measure with its resamplings. The pictures are drawn once."""
    with tempfile.TemporaryDirectory() as folder:
        path = adapters.write(one.adapter, Path(folder, "blend.safetensors"))
        found, images = first.measure(0, path)
    style = second.seen(images, SEEDS)["style"]
    samples = {name: np.array(values) for name, values in found.samples.items()}
    return {
        "first": (found.style.value, samples["style"]),
        "second": (second.scale.percent(style).value, np.array(second.scale.resampled(style).tolist())),
        "subject": (found.subject.value, samples["subject"]),
        "drift": (found.drift.value, samples["drift"]),
    }


def interval(value: float, samples: np.ndarray, digits: int) -> str:
    low, high = np.quantile(samples, (0.025, 0.975)) - samples.mean()
    return f"{value:.{digits}f} [{value + low:.{digits}f}, {value + high:.{digits}f}]"


def row(name: str, found: Mapping[str, tuple[float, np.ndarray]], tail: str = "") -> None:
    cells = (interval(*one, digits=0 if key in STYLES else 2) for key, one in found.items())
    print(f"{name:40}" + "".join(f"{cell:>22}" for cell in cells) + tail, flush=True)


def main() -> None:
    outputs, *names = sys.argv[1:]
    first, second = (runs.find(name, Path(outputs)) for name in names or ("ink-icons", "blueprint"))
    seen = [Path(run.settings().run.data) for run in (first, second)]
    captions = [path.read_text("utf-8") for folder in seen for path in sorted(folder.glob("*.txt"))]
    prompts = subjects.prompts(captions, PROMPTS)
    benches = bench(first, prompts), bench(second, prompts)
    levels = " and ".join(f"{one.level.value:.2f}" for one in benches)
    print(f"{', '.join(prompts)}; subject of the training pictures {levels}")
    heads = (f"style of {first.name}", f"style of {second.name}", "subject", "drift")
    print(f"{'':40}" + "".join(f"{head:>22}" for head in heads) + f"{'residual':>12}")
    average: dict[str, tuple[float, np.ndarray]] = {}
    for name, one in made(first, second).items():
        found = measured(one, *benches)
        row(name, found, f"{one.residual:>12.2f}")
        average = average or found
        row("", {key: (found[key][0] - average[key][0], found[key][1] - average[key][1]) for key in found})


if __name__ == "__main__":
    main()
