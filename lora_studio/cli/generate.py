"""``generate``: prompts and adapters -> pictures."""

from __future__ import annotations

import io
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_studio import files, runs
from lora_studio.cli.drawing import Drawing
from lora_studio.cli.options import duration, like, of_class, tell
from lora_studio.config.settings import SPECS, Settings
from lora_studio.errors import AdapterError, SettingsError


@dataclass
class Order(Drawing):
    """What ``generate`` is asked for."""

    prompts: Annotated[list[str], typer.Option("--prompt", metavar="TEXT", help="What to draw; may be repeated.")] = ()
    adapters: Annotated[
        list[str],
        typer.Option(
            "--adapter", metavar="FILE[:WEIGHT]", help="An adapter, and its weight if it is not 1; may be repeated."
        ),
    ] = ()
    seed: Annotated[int, like("preview_seed", "Seed of a prompt's first picture; each next one adds 1.")] = SPECS[
        "preview_seed"
    ].default
    count: Annotated[int, typer.Option(min=1, max=1000, help="Pictures for each prompt.")] = 1
    folder: Annotated[
        Path, typer.Option("-o", "--folder", help="Where the pictures go.", show_default="outputs/pictures")
    ] = runs.pictures_folder()


@of_class(Order)
def generate(order: Order) -> None:
    """Draw pictures, with adapters or without."""
    if not order.prompts:
        raise SettingsError(
            "Nothing to draw is named.",
            where="--prompt",
            do='Write for example: python3 app.py generate --prompt "a cat"',
        )
    machine_settings = Settings().changed(sampler=order.sampler, device=order.device)
    adapters = [parse_adapter(text) for text in order.adapters]
    began = time.monotonic()
    paths = _draw(order, adapters, machine_settings)
    result = {
        "pictures": paths,
        "seconds": round(time.monotonic() - began, 2),
        "adapters": [{"file": path, "weight": weight} for path, weight in adapters],
    }
    tell(result, [*map(str, paths), f"{len(paths)} pictures in {duration(result['seconds'])}."], order.as_json)


def parse_adapter(text: str, where: str = "--adapter") -> tuple[Path, float]:
    """``FILE`` or ``FILE:WEIGHT`` (a file, or a folder that peft wrote); the colon of ``C:\\style.safetensors`` parts
    no weight off.

    Raises:
        AdapterError: there is no such file, or the weight is no finite number.
    """
    head, colon, tail = text.rpartition(":")
    try:
        file, weight = (head, float(tail)) if colon and head and not Path(text).exists() else (text, 1.0)
    except ValueError:
        file, weight = text, 1.0
    if not math.isfinite(weight):
        raise AdapterError(
            f"The weight of {Path(file).name} is {weight}.", where=where, do="Give a number; 0.5 to 1 is usual."
        )
    path = Path(file).expanduser()
    if not path.exists():
        raise AdapterError(
            f"There is no adapter {path}.",
            where=where,
            do="Give the path of a .safetensors file, and its weight behind a colon.",
        )
    return path.resolve(), weight


def _draw(order: Order, adapters: list[tuple[Path, float]], settings: Settings) -> list[Path]:
    """Loads the model, then draws prompt by prompt, so that each prompt's pictures are kept as soon as they are there."""
    from lora_studio import models
    from lora_studio.adapters import read
    from lora_studio.models import inject
    from lora_studio.sampling.generate import generate as draw
    from lora_studio.training import devices

    machine = devices.choose(settings)
    base = models.load(order.base, machine.device, machine.dtype)
    inject.load_adapters(base, [(read(path), weight) for path, weight in adapters])
    how = {
        "negative": order.negative,
        "steps": order.steps,
        "guidance": order.guidance,
        "sampler": order.sampler,
        "width": order.width,
        "height": order.height,
    }
    seeds = range(order.seed, order.seed + order.count)
    return [
        _save(image, order, prompt, seed, adapters)
        for prompt in order.prompts
        for seed, image in zip(seeds, draw(base, [prompt] * order.count, seeds, **how), strict=True)
    ]


def _save(image: Any, order: Order, prompt: str, seed: int, adapters: list[tuple[Path, float]]) -> Path:
    """Writes one picture, its recipe in the header, under a name that is still free."""
    from PIL.PngImagePlugin import PngInfo

    note, data = PngInfo(), io.BytesIO()
    loras = "".join(f" <lora:{path.stem}:{weight:g}>" for path, weight in adapters)
    negative = f"\nNegative prompt: {order.negative}" if order.negative else ""
    how = f"Steps: {order.steps}, Sampler: {order.sampler}, CFG scale: {order.guidance}, Seed: {seed}, Model: {Path(order.base).stem}"
    note.add_text("parameters", f"{prompt}{loras}{negative}\n{how}")
    image.save(data, "PNG", pnginfo=note)
    path = files.free(order.folder.resolve() / f"{files.safe_name(prompt)[:40]}-{seed}.png")
    files.write(path, data.getvalue())
    return path
