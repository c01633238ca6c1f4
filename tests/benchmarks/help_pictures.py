"""Draws the pictures of ``docs/help``: what a setting does to a sample style.

    python -m tests.benchmarks.help_pictures [SETTING ...]

The built-in starter is trained on the first sample style with ``quick-look``, with one setting changed at a time, and
draws two subjects that no caption names. Each setting becomes a strip, with a column for each value. Nine runs in all;
the same seed draws the same strips on one kind of machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from lora_studio import adapters, models, runs, starter
from lora_studio.config import presets
from lora_studio.models import inject
from lora_studio.runs import Run
from lora_studio.sampling.generate import generate
from lora_studio.sampling.image_settings import ImageSettings
from lora_studio.sampling.sheet import sheet
from lora_studio.training import devices
from lora_studio.training.loop import train

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "help"
SUBJECTS = ("cat", "house")
MOST = 60_000
"""Bytes of a strip."""
_SIDE = 192
"""Pixels of a picture in a strip."""
_HOW = ["checkpoint_every=0", "preview_every=0", "validate_every=0", "preview_prompts=cat|house", "trigger=blueprint"]


class Strip(NamedTuple):
    """One setting's strip: its key, and the values that are tried."""

    key: str
    values: tuple[float, ...]
    about: str = "{}"
    """A value as its column's title."""


STRIPS = (
    Strip("rank", (1, 4, 32), "rank {}"),
    Strip("steps", (40, 80, 160, 320), "{} steps"),
    Strip("learning_rate", (1e-4, 5e-4, 2e-3, 2e-2), "{}"),
    Strip("caption_dropout", (0, 0.3, 1), "{}"),
    Strip("strength", (0, 0.5, 1, 1.5, 2.5), "strength {}"),
)
"""In the order in which they are drawn. Steps are the previews of one run; strength is that of its adapter."""


class Trained:
    """Runs on the sample style, each trained once."""

    def __init__(self, outputs: Path):
        self.outputs, self._runs = outputs, {}

    def run(self, *changed: str) -> Run:
        """The run with those settings, ``key=value``, changed."""
        if changed not in self._runs:
            settings = presets.layered("quick-look", [*_HOW, *changed], data=str(starter.sample_styles()[0]))
            run = runs.create(settings, self.outputs)
            for _ in train(run, settings):
                pass
            self._runs[changed] = run
        return self._runs[changed]

    def pictures(self, key: str, value: float) -> list[Image.Image]:
        """What the run with that value of the setting draws at its end."""
        usual = presets.layered("quick-look", []).flat()
        with_it = [f"alpha={value:g}"] if key == "rank" else []  # else its scale, alpha / rank, would change too
        run = self.run(*([] if usual.get(key) == value else [f"{key}={value:g}", *with_it]))
        return _shown(run, run.settings().run.steps)

    def at_steps(self, key: str, value: float) -> list[Image.Image]:
        """What one long run draws after so many steps."""
        return _shown(self.run("steps=320", "preview_every=40"), int(value))

    def at_strength(self, key: str, value: float) -> list[Image.Image]:
        """What the usual run's adapter draws at that strength."""
        run = self.run()
        machine = devices.choose(run.settings().machine)
        base = models.load("starter", machine.device, machine.dtype)
        inject.load_adapters(base, [(adapters.read(run.adapter_file), value)])
        settings = run.settings()
        prompts = [f"{settings.run.trigger} {subject}" for subject in SUBJECTS]
        seeds = [settings.previews.preview_seed + i for i in range(len(prompts))]
        return generate(base, prompts, seeds, ImageSettings.of_previews(settings.previews, base.resolution))


def _shown(run: Run, step: int) -> list[Image.Image]:
    return [Image.open(run.preview_file(step, index)).convert("RGB") for index in range(len(SUBJECTS))]


def drawn(strip: Strip, trained: Trained) -> Image.Image:
    """The strip: a column for each value, a row for each subject."""
    way: Callable[[str, float], list[Image.Image]] = trained.pictures
    way = {"steps": trained.at_steps, "strength": trained.at_strength}.get(strip.key, way)
    columns = [
        [one.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS) for one in way(strip.key, value)]
        for value in strip.values
    ]
    return sheet(
        [list(row) for row in zip(*columns, strict=True)],
        columns=[strip.about.format(f"{value:g}") for value in strip.values],
    )


def save(image: Image.Image, path: Path) -> None:
    """As a WebP of at most ``MOST`` bytes."""
    for quality in (80, 70, 60, 50, 40):
        image.save(path, quality=quality, method=6)
        if path.stat().st_size <= MOST:
            return
    raise ValueError(f"{path.name} is larger than {MOST:,} bytes")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("settings", nargs="*", help="only these")
    wanted = ask.parse_args().settings
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lora-studio-") as folder:
        trained = Trained(Path(folder))
        for strip in STRIPS:
            if not wanted or strip.key in wanted:
                save(drawn(strip, trained), FOLDER / f"{strip.key}.webp")
                print(strip.key, flush=True)


if __name__ == "__main__":
    main()
