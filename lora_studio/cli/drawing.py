"""What the commands that draw images share: options, a sheet's adapters by name, and drawing it. torch is imported only
for that.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Annotated

import typer

from lora_studio import __version__, files, runs
from lora_studio.cli.options import AsJson, duration, like, tell
from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.errors import SettingsError
from lora_studio.sampling.axes import Axis, Grid


@dataclass
class DrawingOptions:
    """Options of every command that draws images."""

    base: Annotated[str, like("base")] = SPECS["base"].default
    negative: Annotated[str, like("negative", "What the images should avoid.")] = SPECS["negative"].default
    seed: Annotated[int, like("preview_seed", "Seed of the images.")] = SPECS["preview_seed"].default
    steps: Annotated[int, like("preview_steps", "Denoising steps.")] = SPECS["preview_steps"].default
    guidance: Annotated[float, like("guidance", "How strictly an image follows its prompt.")] = SPECS[
        "guidance"
    ].default
    sampler: Annotated[str, like("sampler", f"One of {', '.join(SPECS['sampler'].choices)}.")] = SPECS[
        "sampler"
    ].default
    width: Annotated[int, typer.Option(min=0, max=4096, help="In pixels; 0 uses the base model's own.")] = 0
    height: Annotated[int, typer.Option(min=0, max=4096, help="In pixels; 0 uses the base model's own.")] = 0
    device: Annotated[str, like("device", "Where to draw; auto uses the fastest device.")] = SPECS["device"].default
    as_json: AsJson = False


@dataclass
class SheetOptions(DrawingOptions):
    """Options of a labelled sheet."""

    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="What to draw.")] = ""
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="The sheet, a PNG.", show_default="a new one in outputs/pictures"
        ),
    ] = None


class SheetAdapters:
    """The adapters of a sheet, each under a short name of its own."""

    def __init__(self):
        self.placed: dict[str, tuple[Path, float]] = {}

    def add(self, path: Path, weight: float, label: str = "") -> str:
        """Adds an adapter and returns its name: ``label`` or the file's, made unique by weight, folder or number."""
        for name, known in self.placed.items():
            if known == (path, weight):
                return name
        short = label or path.stem
        longer = (
            f"{short}:{weight:g}"
            if path in (known for known, _ in self.placed.values())
            else f"{path.parent.name}/{short}"
        )
        name = next(
            name
            for name in chain((short, longer), (f"{short}-{number}" for number in count(2)))
            if name not in self.placed
        )
        self.placed[name] = path, weight
        return name


def draw(options: SheetOptions, name: str, x: Axis, y: Axis | None, adapters: SheetAdapters) -> None:
    """Draws the cells of the two axes, saves the sheet with its recipe, and reports it.

    Raises:
        SettingsError: there is no prompt, the axes do not go together, or the file exists already.
    """
    if not options.prompt and "prompt" not in (x.kind, y and y.kind):
        raise SettingsError(
            "There is no prompt.",
            where="--prompt",
            do=f'Write for example: python3 app.py {name} … --prompt "a cat"',
        )
    settings = Settings().changed(sampler=options.sampler, device=options.device)
    path, began = _destination(options.out, name), time.monotonic()
    recipe = _recipe(options, x, y, adapters)
    files.write(path, _sheet(options, recipe, settings, [file for file, _ in adapters.placed.values()]))
    seconds, pictures = round(time.monotonic() - began, 2), sum(len(row) for row in recipe.cells)
    tell(
        {"sheet": path, "pictures": pictures, "seconds": seconds, "recipe": recipe.model_dump(mode="json")},
        [str(path), f"{pictures} images in {duration(seconds)}."],
        options.as_json,
    )


def _recipe(options: SheetOptions, x: Axis, y: Axis | None, adapters: SheetAdapters) -> Grid:
    from lora_studio.sampling.recipe import grid

    recorded = [
        {"name": name, "weight": weight, "sha256": _sha256(path)} for name, (path, weight) in adapters.placed.items()
    ]
    same = {
        key: getattr(options, key)
        for key in ("prompt", "negative", "seed", "guidance", "steps", "sampler", "width", "height")
    }
    return grid(x=x, y=y, adapters=recorded, base=Path(options.base).name, version=__version__, **same)


def _sheet(options: SheetOptions, recipe: Grid, settings: Settings, paths: list[Path]) -> bytes:
    from lora_studio import models
    from lora_studio.adapters import read
    from lora_studio.sampling.grid import render
    from lora_studio.sampling.recipe import to_png
    from lora_studio.training import devices

    adapters = [read(path) for path in paths]
    machine = devices.choose(settings.machine)
    base = models.load(options.base, machine.device, machine.dtype)
    images = render(
        base,
        adapters,
        [cell for row in recipe.cells for cell in row],
        negative=options.negative,
        sampler=options.sampler,
        width=options.width,
        height=options.height,
    )
    return to_png(recipe.model_copy(update={"base_sha256": base.sha256()}), images)


def _sha256(path: Path) -> str:
    """Of an adapter's file, or of the weights in a folder that peft wrote."""
    return files.sha256(path / "adapter_model.safetensors" if path.is_dir() else path)


def _destination(out: Path | None, name: str) -> Path:
    if out is None:
        return files.free(runs.pictures_folder(runs.OUTPUTS.resolve()) / f"{name}.png")
    path = out.expanduser()
    path = path if path.suffix.lower() == ".png" else path.with_name(f"{path.name}.png")
    if path.exists():
        raise SettingsError(
            f"{path} exists already.", where="-o", do="Choose another name: no command overwrites a file."
        )
    return path.resolve()
