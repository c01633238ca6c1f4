"""The time from the start of a run to its first step: ``python tests/benchmarks/start.py [BASE]``. The bases ``sd1``,
``sd2`` and ``sdxl`` are random models of the exact shapes.

Runs three times through the studio's own worker. The first run encodes pictures and captions and draws the base model's
previews; the second finds them in the cache. Both pay for the rest: Python's imports, loading the weights, creating the
adapter, and the first step, in which libraries choose their kernels. The third is as the second, in a process that was
warm. Prints seconds since the start.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lora_studio import runs, starter
from lora_studio.config.settings import Settings
from lora_studio.events import Event, Failed, Preparing, Started, State, StateChanged, StepDone
from lora_studio.jobs import runner, warm

EXACT = ("sd1", "sd2", "sdxl")


def moment(event: Event) -> str:
    """The part of the start that an event completes; empty if it completes none."""
    match event:
        case StateChanged(state=State.PREPARING):
            return "imports"
        case Preparing(stage="base model", done=1):
            return "base model"
        case Preparing() if event.done == event.total:
            return event.stage
        case Started():
            return "adapter, optimizer"
        case StateChanged(state=State.RUNNING):
            return "base model's previews"
        case StepDone():
            return f"step {event.step}"
    return ""


def timeline(settings: Settings, outputs: Path) -> dict[str, float]:
    """Seconds from the start of the run to the end of each part."""
    run, began, ends = runs.create(settings, outputs), 0.0, {}
    runner.start(run)
    for event in runner.follow(run):
        began = began or event.at
        if isinstance(event, Failed):
            raise SystemExit(event.what)
        if name := moment(event):
            ends[name] = event.at - began
    return ends


def warm_up(outputs: Path) -> None:
    """Starts the process that a run is handed over to, and waits until it has nothing more to do."""
    warm.enable(outputs)
    warm.want(busy=False)
    assert warm._process, "there is no room for one"
    process, spent = psutil.Process(warm._process.pid), -1.0
    while (now := sum(process.cpu_times()[:2])) > spent + 0.05:
        spent = now
        time.sleep(3)
    print(f"warm: {process.memory_info().rss / 2**30:.2f} GB, {spent:.1f} s of a core until then", flush=True)
    time.sleep(10)
    print(f"then {sum(process.cpu_times()[:2]) - spent:.2f} s of a core in 10 s", flush=True)


def told(which: str, ends: dict[str, float]) -> dict[str, float]:
    """``ends``, after the time to the first step was printed: the next run may take minutes."""
    print(f"{which}: {ends['step 1']:.2f} s to the first step", flush=True)
    return ends


def main() -> None:
    base = sys.argv[1] if len(sys.argv) > 1 else "starter"
    with tempfile.TemporaryDirectory() as scratch:
        if base in EXACT:
            from tests.models import exact  # torch, which the studio's own commands do without

            base = str(exact.folder(Path(scratch) / base, base))
        settings = Settings(
            data=str(starter.sample_styles()[0]),
            base=base,
            name="start",
            steps=4,
            max_upscale=8,
            preview_steps=20,
            preview_prompts=["a cat"] * 4,
            preview_every=0,
            validate_every=0,
            checkpoint_every=0,
        )
        first = told("first run", timeline(settings, Path(scratch)))
        second = told("second", timeline(settings, Path(scratch)))
        warm_up(Path(scratch))
        third = told("warm", timeline(settings, Path(scratch)))
    print(f"{'':24}{'first run':>12}{'second':>10}{'warm':>10}")
    for name, when in second.items():
        print(f"{name:24}{first[name]:10.2f} s{when:8.2f} s{third[name]:8.2f} s")


if __name__ == "__main__":
    main()
