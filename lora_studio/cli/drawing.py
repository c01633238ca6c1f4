"""What the commands that draw share: options, a sheet's adapters by name, and how it is drawn. No torch until it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Annotated

import typer

from lora_studio import __version__, files, runs
from lora_studio.cli.options import AsJson, duration, like, tell
from lora_studio.config.settings import SPECS, Settings
from lora_studio.errors import SettingsError
from lora_studio.sampling.axes import Axis, Grid


@dataclass
class Drawing:
    """Options of everything that is drawn."""

    base: Annotated[str, like("base")] = SPECS["base"].default
    negative: Annotated[str, like("negative", "What the pictures should avoid.")] = SPECS["negative"].default
    seed: Annotated[int, like("preview_seed", "Seed of the pictures.")] = SPECS["preview_seed"].default
    steps: Annotated[int, like("preview_steps", "Denoising steps.")] = SPECS["preview_steps"].default
    guidance: Annotated[float, like("guidance", "How strictly a picture follows its prompt.")] = SPECS[
        "guidance"
    ].default
    sampler: Annotated[str, like("sampler", f"One of {', '.join(SPECS['sampler'].choices)}.")] = SPECS[
        "sampler"
    ].default
    width: Annotated[int, typer.Option(min=0, max=4096, help="In pixels; 0 takes the base model's own.")] = 0
    height: Annotated[int, typer.Option(min=0, max=4096, help="In pixels; 0 takes the base model's own.")] = 0
    device: Annotated[str, like("device", "Where to draw; auto takes the fastest there is.")] = SPECS["device"].default
    as_json: AsJson = False


@dataclass
class Sheet(Drawing):
    """Options of a labelled sheet."""

    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="What to draw.")] = ""
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="The sheet, a PNG.", show_default="a new one in outputs/pictures"
        ),
    ] = None


class Cast:
    """Adapters of a sheet, each under a short name of its own."""

    def __init__(self):
        self.placed: dict[str, tuple[Path, float]] = {}

    def add(self, path: Path, weight: float, label: str = "") -> str:
        """The adapter's name: ``label`` or its file's, with what tells it from another one of that name."""
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


def draw(order: Sheet, name: str, x: Axis, y: Axis | None, cast: Cast) -> None:
    """Draws the cells of the two axes, saves the sheet with its recipe, and tells of it.

    Raises:
        SettingsError: nothing to draw is named, the axes do not go together, or there is a file already.
    """
    if not order.prompt and "prompt" not in (x.kind, y and y.kind):
        raise SettingsError(
            "Nothing to draw is named.",
            where="--prompt",
            do=f'Write for example: python3 app.py {name} … --prompt "a cat"',
        )
    settings = Settings().changed(sampler=order.sampler, device=order.device)
    path, began = _destination(order.out, name), time.monotonic()
    recipe = _recipe(order, x, y, cast)
    files.write(path, _sheet(order, recipe, settings, [file for file, _ in cast.placed.values()]))
    seconds, pictures = round(time.monotonic() - began, 2), sum(len(row) for row in recipe.cells)
    tell(
        {"sheet": path, "pictures": pictures, "seconds": seconds, "recipe": recipe.model_dump(mode="json")},
        [str(path), f"{pictures} pictures in {duration(seconds)}."],
        order.as_json,
    )


def _recipe(order: Sheet, x: Axis, y: Axis | None, cast: Cast) -> Grid:
    from lora_studio.sampling.recipe import grid

    adapters = [
        {"name": name, "weight": weight, "sha256": _sha256(path)} for name, (path, weight) in cast.placed.items()
    ]
    same = {
        key: getattr(order, key)
        for key in ("prompt", "negative", "seed", "guidance", "steps", "sampler", "width", "height")
    }
    return grid(x=x, y=y, adapters=adapters, base=Path(order.base).name, version=__version__, **same)


def _sheet(order: Sheet, recipe: Grid, settings: Settings, paths: list[Path]) -> bytes:
    from lora_studio import models
    from lora_studio.adapters import read
    from lora_studio.sampling.grid import render
    from lora_studio.sampling.recipe import to_png
    from lora_studio.training import devices

    adapters = [read(path) for path in paths]
    machine = devices.choose(settings)
    base = models.load(order.base, machine.device, machine.dtype)
    how = {"negative": order.negative, "sampler": order.sampler, "width": order.width, "height": order.height}
    pictures = render(base, adapters, [cell for row in recipe.cells for cell in row], **how)
    return to_png(recipe.model_copy(update={"base_sha256": base.sha256()}), pictures)


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
            f"{path} exists already.", where="-o", do="Choose another name: no command overwrites what is there."
        )
    return path.resolve()
