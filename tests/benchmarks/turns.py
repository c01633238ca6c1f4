"""Drawing beside a run: ``python tests/benchmarks/turns.py [BASE]``. The bases ``sd1``, ``sd2`` and ``sdxl`` are random
models of the exact shapes.

Trains the same run twice through the studio's own worker, the second time while pictures are drawn in turns with it.
Prints how long each picture waited and took, whether the two adapters are the same to the bit, and what was refused.
``deterministic`` is on, without which a GPU does not repeat itself.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lora_studio import files, runs, starter
from lora_studio.config.settings import Settings
from lora_studio.errors import StudioError
from lora_studio.events import Finished
from lora_studio.jobs import runner, view
from lora_studio.jobs.image_spec import ImageSpec
from lora_studio.jobs.renderer import Renderer
from lora_studio.runs import Run

EXACT = ("sd1", "sd2", "sdxl")
PICTURES = 4


def draw(run: Run, base: str, folder: Path) -> None:
    """Draws while ``run`` trains."""
    renderer = Renderer(run.folder.parent, folder)
    while renderer.waits() and runner.alive(run):
        time.sleep(0.1)
    for number in range(PICTURES):
        began, waited = time.monotonic(), 0.0
        try:
            for answer in renderer.draw(ImageSpec(base=base, prompt=f"a cat {number}", steps=10), "benchmark"):
                waited = time.monotonic() - began if answer.kind == "waiting" else waited
                if answer.kind == "drawn":
                    last = view.fold(run).last
                    print(f"drawn in {answer.seconds:.2f} s, {time.monotonic() - began:.2f} s after it was asked for, "
                          f"at step {last.step if last else 0}")  # fmt: skip
        except StudioError as error:
            print(f"refused: {error}")
    renderer.close()


def trained(settings: Settings, outputs: Path, folder: Path | None) -> Run:
    """The finished run; drawn beside if there is a ``folder`` for pictures."""
    run = runs.create(settings, outputs)
    runner.start(run)
    if folder:
        draw(run, settings.run.base, folder)
    *_, end = runner.follow(run)
    assert isinstance(end, Finished), end
    print(f"{run.name}: {end.seconds:.1f} s in {end.steps} steps")
    return run


def main() -> None:
    base = sys.argv[1] if len(sys.argv) > 1 else "starter"
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 400
    with tempfile.TemporaryDirectory() as scratch:
        if base in EXACT:
            from tests.models import exact

            base = str(exact.folder(Path(scratch) / base, base))
        quiet = {"preview_every": 0, "validate_every": 0, "checkpoint_every": 0, "preview_prompts": ["a cat"]}
        settings = Settings(
            data=str(starter.sample_styles()[0]), base=base, name="turns", steps=steps, max_upscale=8, **quiet
        ).changed(deterministic=True)
        alone = trained(settings, Path(scratch) / "alone", None)
        shared = trained(settings, Path(scratch) / "shared", Path(scratch) / "pictures")
        states = [files.sha256(run.checkpoint(steps) / "state.safetensors") for run in (alone, shared)]
        print("the same to the bit" if states[0] == states[1] else "NOT the same")


if __name__ == "__main__":
    main()
