"""``generate``: prompts and adapters -> images."""

from __future__ import annotations

import io
import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_studio import files, runs
from lora_studio.cli.drawing import DrawingOptions, load_base, note_unknown, suited
from lora_studio.cli.options import duration, like, of_class, tell
from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.errors import AdapterError, SettingsError


@dataclass
class GenerateOptions(DrawingOptions):
    """The options of ``generate``."""

    prompts: Annotated[list[str], typer.Option("--prompt", metavar="TEXT", help="What to draw; may be repeated.")] = (
        field(default_factory=list)
    )
    adapters: Annotated[
        list[str],
        typer.Option(
            "--adapter", metavar="FILE[:WEIGHT]", help="An adapter, and its weight if it is not 1; may be repeated."
        ),
    ] = field(default_factory=list)
    seed: Annotated[int, like("preview_seed", "Seed of a prompt's first image; each further one adds 1.")] = SPECS[
        "preview_seed"
    ].default
    count: Annotated[int, typer.Option(min=1, max=1000, help="Images per prompt.")] = 1
    folder: Annotated[
        Path, typer.Option("-o", "--folder", help="Where the images go.", show_default="outputs/pictures")
    ] = runs.pictures_folder()


@of_class(GenerateOptions)
def generate(options: GenerateOptions) -> None:
    """Generate images, with adapters or without."""
    if not options.prompts:
        raise SettingsError(
            "There is no prompt.",
            where="--prompt",
            do='Write for example: python3 app.py generate --prompt "a cat"',
        )
    settings, options = options.settings(), suited(options)
    adapters = [parse_adapter(text) for text in options.adapters]
    began = time.monotonic()
    paths = _draw(options, adapters, settings)
    result = {
        "pictures": paths,
        "seconds": round(time.monotonic() - began, 2),
        "adapters": [{"file": path, "weight": weight} for path, weight in adapters],
    }
    tell(
        result,
        [*map(str, paths), f"{len(paths)} image{'s' * (len(paths) != 1)} in {duration(result['seconds'])}."],
        options.as_json,
    )


def parse_adapter(text: str, where: str = "--adapter") -> tuple[Path, float]:
    """``FILE`` or ``FILE:WEIGHT`` (a file, or a folder that peft wrote); the colon of ``C:\\style.safetensors`` does
    not start a weight.

    Raises:
        AdapterError: there is no such file, or the weight is not finite.
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
            do="Give the path of a .safetensors file, with its weight after a colon.",
        )
    return path.resolve(), weight


def _draw(options: GenerateOptions, adapters: list[tuple[Path, float]], settings: Settings) -> list[Path]:
    """Loads the model and generates prompt by prompt, so that each prompt's images are saved as soon as they exist."""
    from lora_studio.adapters import read
    from lora_studio.models import inject
    from lora_studio.sampling.generate import generate as draw

    note_unknown(options.prompts, options)
    loaded = [(read(path), weight) for path, weight in adapters]
    named = [(path.name, adapter) for (path, _), (adapter, _) in zip(adapters, loaded, strict=True)]
    base = load_base(options, settings, named)
    inject.load_adapters(base, loaded)
    options = replace(options, clip_skip=base.clip_skip)
    seeds, paths = range(options.seed, options.seed + options.count), []
    for prompt in options.prompts:
        images = draw(
            base,
            [prompt] * options.count,
            seeds,
            negative=options.negative,
            steps=options.steps,
            guidance=options.guidance,
            guidance_rescale=options.guidance_rescale,
            sampler=options.sampler,
            width=options.width,
            height=options.height,
            prompt_weights=options.prompt_weights,
        )
        paths += [_save(image, options, prompt, seed, adapters) for seed, image in zip(seeds, images, strict=True)]
    return paths


def file_name(prompt: str, seed: int) -> str:
    """The name of an image's file. Slashes and escaped brackets of a prompt are no path."""
    words = files.safe_name(prompt.replace("/", " ").replace("\\", " "))
    return f"{words[:40]}-{seed}.png"


def _save(image: Any, options: GenerateOptions, prompt: str, seed: int, adapters: list[tuple[Path, float]]) -> Path:
    """Writes one image, with its recipe in the header, under a name that is not taken."""
    from PIL.PngImagePlugin import PngInfo

    note, data = PngInfo(), io.BytesIO()
    loras = "".join(f" <lora:{path.stem}:{weight:g}>" for path, weight in adapters)
    negative = f"\nNegative prompt: {options.negative}" if options.negative else ""
    how = (
        f"Steps: {options.steps}, Sampler: {options.sampler}, CFG scale: {options.guidance}, Seed: {seed}, "
        f"Model: {Path(options.base).stem}" + (f", Clip skip: {options.clip_skip}" if options.clip_skip > 1 else "")
    )
    note.add_text("parameters", f"{prompt}{loras}{negative}\n{how}")
    image.save(data, "PNG", pnginfo=note)
    path = files.free(options.folder.resolve() / file_name(prompt, seed))
    files.write(path, data.getvalue())
    return path
