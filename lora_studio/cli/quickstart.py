"""``quickstart``: trains a sample style and draws a sheet of what it changes, without a browser."""

from __future__ import annotations

import io
import time
from functools import partial
from pathlib import Path

from lora_studio import files, runs, starter
from lora_studio.cli import train, watch
from lora_studio.cli.options import AsJson, Outputs, duration, tell
from lora_studio.config import presets
from lora_studio.errors import MachineError
from lora_studio.runs import Run

PRESET = "quick-look"
SHOWN = 6
SUBJECTS = ("cat", "house", "rocket", "tree", "fish", "ghost", "sun", "car", "cup", "flower", "apple", "heart")
"""Subjects that the sheet may show."""


def quickstart(outputs: Outputs = runs.OUTPUTS, as_json: AsJson = False) -> None:
    """Train a sample style on the built-in starter, and draw before and after."""
    began = time.monotonic()
    styles = starter.sample_styles() if starter.SAMPLES.is_dir() else []
    if not styles:
        raise MachineError("The sample styles are missing.", where=starter.SAMPLES, do="Download the studio again.")
    style = styles[0]
    settings = presets.layered(PRESET, [], data=str(style), name=f"quickstart-{style.name}")
    run = train.begin(settings, outputs)
    seen = watch.work(run)
    sheet = run.folder / "before-after.png"
    _draw_sheet(run, unseen(style), sheet)
    seconds = round(time.monotonic() - began, 2)
    result = train.result(run, seen) | {"sheet": sheet, "seconds_in_all": seconds}
    lines = [*train.summary(run, seen)[:2], f"Before and after, on subjects that were not among the pictures: {sheet}"]
    lines.append(f"{duration(seconds)} in total.")
    tell(result, lines, as_json)


def unseen(style: Path) -> list[str]:
    """Subjects that no caption of the folder names, so that the sheet shows the style and no copies."""
    captions = " ".join(path.read_text("utf-8").lower() for path in style.glob("*.txt"))
    return [subject for subject in SUBJECTS if subject not in captions][:SHOWN]


def _draw_sheet(run: Run, subjects: list[str], path: Path) -> None:
    """Draws each subject without the adapter and with it, from the same seed."""
    from lora_studio import models
    from lora_studio.adapters import read
    from lora_studio.dataset import caption_variants
    from lora_studio.models import inject
    from lora_studio.sampling.generate import generate
    from lora_studio.sampling.image_settings import ImageSettings
    from lora_studio.sampling.sheet import before_after
    from lora_studio.training import devices

    settings = run.settings()
    machine = devices.choose(settings.machine)
    base = models.load(settings.run.base, machine.device, machine.dtype)
    inject.load_adapters(base, [(read(run.adapter_file), 1.0)])
    prompts = [caption_variants.with_trigger(subject, settings.run.trigger) for subject in subjects]
    seeds = list(range(settings.previews.preview_seed, settings.previews.preview_seed + len(prompts)))
    how = ImageSettings.of_previews(settings.previews, base.resolution)
    draw = partial(generate, base, settings=how)
    with inject.without_adapter(base):
        before = draw(subjects, seeds)
    after = draw(prompts, seeds)
    image = io.BytesIO()
    before_after(subjects, before, after, title=f"{run.name}: {settings.run.steps} steps").save(image, "PNG")
    files.write(path, image.getvalue())
