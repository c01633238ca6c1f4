"""The cost of saving states: ``python tests/benchmarks/saving.py [--base BASE] [--device DEVICE] [--steps STEPS]``.

Trains with the default settings for a few steps and saves often. Prints how long a step and a save take, and the share
of a run's time that saving takes at the default interval. Both times come from the same run, so the share holds on any
machine. The goal is less than 1 %.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lora_studio import runs, starter
from lora_studio.config.settings import Settings
from lora_studio.events import CheckpointSaved, Started, StepDone
from lora_studio.runs import checkpoints
from lora_studio.training.loop import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="starter")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    usual = Settings()
    with tempfile.TemporaryDirectory() as folder:
        few = {
            "steps": arguments.steps,
            "checkpoint_every": max(1, arguments.steps // 8),
            "preview_every": 0,
            "preview_steps": 1,
            "preview_prompts": ["a cat"],
            "validate_every": 0,
        }
        run = runs.create(
            usual.changed(data=str(starter.sample_styles()[0]), base=arguments.base, device=arguments.device, **few),
            Path(folder),
        )
        steps, saves, began = [], [], time.monotonic()
        for event in train(run, run.settings()):
            now = time.monotonic()
            match event:
                case Started():
                    adapter = f"{event.parameters / 1e6:.2f} M parameters, rank {usual.adapter.rank}"
                    print(f"{event.device}, {event.precision}, {adapter}, optimizer {usual.optimizer.optimizer}")
                case StepDone():
                    steps.append(now - began)
                case CheckpointSaved():
                    saves.append(event.seconds)
            began = time.monotonic()
        size = checkpoints.listed(run)[-1].size
    step, save = statistics.median(steps[2:]), statistics.median(saves)
    every, minutes = usual.saving.checkpoint_every, usual.saving.checkpoint_minutes
    interval = min(every * step, 60 * minutes)
    saved = f"{1000 * save:.1f} ms (median of {len(saves)}, longest {1000 * max(saves):.1f})"
    print(f"a step {1000 * step:.1f} ms; a state of {size / 1e6:.1f} MB saved in {saved}")
    share = f"{save / (interval + save):.2%} of the time is spent saving"
    print(f"every {interval:.0f} s ({every} steps, at most {minutes:g} minutes): {share}")


if __name__ == "__main__":
    main()
