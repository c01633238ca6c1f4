"""What the commands that draw images share: options, a sheet's adapters by name, and drawing it. torch is imported only
for that.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from lora_studio import __version__, files, runs
from lora_studio.cli.options import AsJson, TextEncoders, Vae, duration, like, tell
from lora_studio.config.settings import Settings
from lora_studio.config.slices import PreviewSettings
from lora_studio.config.specs import SPECS
from lora_studio.errors import SettingsError, StudioError
from lora_studio.events import Warned
from lora_studio.sampling.axes import Axis, Grid
from lora_studio.sampling.image_settings import Hires, ImageSettings

if TYPE_CHECKING:
    from lora_studio.adapters import Adapter
    from lora_studio.models import Base

_WEBP = ".webp"
NOISE = ("prediction", "zero_snr", "flow_shift")
"""Settings on the base model's noise."""


@dataclass
class DrawingOptions:
    """Options of every command that draws images."""

    base: Annotated[str, like("base")] = SPECS["base"].default
    vae: Vae = SPECS["vae"].default
    text_encoders: TextEncoders = field(default_factory=list)
    negative: Annotated[str, like("negative", "What the images should avoid.")] = SPECS["negative"].default
    prompt_weights: Annotated[bool, like("prompt_weights")] = SPECS["prompt_weights"].default
    seed: Annotated[int, like("preview_seed", "Seed of the images.")] = SPECS["preview_seed"].default
    steps: Annotated[int, like("preview_steps", "Denoising steps.")] = SPECS["preview_steps"].default
    guidance: Annotated[float, like("guidance", "How strictly an image follows its prompt.")] = SPECS[
        "guidance"
    ].default
    sampler: Annotated[str, like("sampler", f"One of {', '.join(SPECS['sampler'].choices)}.")] = SPECS[
        "sampler"
    ].default
    guidance_rescale: Annotated[float, like("guidance_rescale")] = SPECS["guidance_rescale"].default
    prediction: Annotated[
        str, like("prediction", f"What the base model predicts: {', '.join(SPECS['prediction'].choices)}.")
    ] = SPECS["prediction"].default
    zero_snr: Annotated[
        str, like("zero_snr", f"Whether its noise ends without any signal: {', '.join(SPECS['zero_snr'].choices)}.")
    ] = SPECS["zero_snr"].default
    flow_shift: Annotated[float, like("flow_shift")] = SPECS["flow_shift"].default
    clip_skip: Annotated[
        int,
        like("clip_skip", "For SD 1.x: 1 or 2. 0 takes what the adapters were trained with, or else the base model."),
    ] = SPECS["clip_skip"].default
    width: Annotated[int, typer.Option(min=0, max=4096, help="In pixels; 0 uses the base model's own.")] = 0
    height: Annotated[int, typer.Option(min=0, max=4096, help="In pixels; 0 uses the base model's own.")] = 0
    enlarge: Annotated[
        float,
        typer.Option(
            "--hires", metavar="SCALE", min=1, max=4, help="Enlarge the drawn image, and refine it; 1 does not."
        ),
    ] = 1.0
    redrawn: Annotated[
        float, typer.Option("--hires-strength", min=0, max=1, help="The share of the noise that refining begins with.")
    ] = 0.5
    device: Annotated[str, like("device", "Where to draw; auto uses the fastest device.")] = SPECS["device"].default
    as_json: AsJson = False

    @property
    def hires(self) -> Hires | None:
        """The second pass, if one is asked for."""
        return Hires(scale=self.enlarge, strength=self.redrawn) if self.enlarge > 1 else None

    def settings(self) -> Settings:
        """The settings of the same names, checked.

        Raises:
            SettingsError: one of them has no such value.
        """
        keys = ("sampler", "device", *NOISE, "guidance_rescale")
        return Settings().changed(**{key: getattr(self, key) for key in keys})


Drawn = TypeVar("Drawn", bound=DrawingOptions)


@dataclass
class SheetOptions(DrawingOptions):
    """Options of a labelled sheet."""

    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="What to draw.")] = ""
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="The sheet, a PNG or a WebP.",
            show_default="a new one in outputs/pictures",
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
    settings, options = options.settings(), suited(options)
    path, began = _destination(options.out, name), time.monotonic()
    paths = [file for file, _ in adapters.placed.values()]
    recipe, sheet = _sheet(options, _recipe(options, x, y, adapters), settings, paths)
    path = _saved(path, sheet)
    seconds, pictures = round(time.monotonic() - began, 2), sum(len(row) for row in recipe.cells)
    tell(
        {"sheet": path, "pictures": pictures, "seconds": seconds, "recipe": recipe.model_dump(mode="json")},
        [str(path), f"{pictures} images in {duration(seconds)}."],
        options.as_json,
    )


def suited(options: Drawn) -> Drawn:
    """``options`` with the steps and guidance of a distilled base model where the defaults were left; says so."""
    from lora_studio.models.load import distillation

    if (found := distillation(options.base)) is None:
        return options
    asked = PreviewSettings(preview_steps=options.steps, guidance=options.guidance)
    if notice := found.overruling(asked):
        print(_note(notice), file=sys.stderr)
    wanted = found.suited(asked)
    return replace(options, steps=wanted.preview_steps, guidance=wanted.guidance)


def note_unknown(prompts: Sequence[str], options: DrawingOptions) -> None:
    """Says on standard error what the prompts hold that is read as plain words here, unless all is to be."""
    from lora_studio.texts.prompts import unknown

    for notice in unknown([*prompts, options.negative]) if options.prompt_weights else ():
        print(_note(notice), file=sys.stderr)


def load_base(options: DrawingOptions, settings: Settings, adapters: Sequence[tuple[str, Adapter]] = ()) -> Base:
    """Loads the base model for the named ``adapters``, to draw with it, and says on standard error what it predicts,
    and what is doubtful about it.
    """
    from lora_studio import models
    from lora_studio.models import clip_skip
    from lora_studio.sampling import shortcuts
    from lora_studio.training import devices

    machine = devices.choose(settings.machine)
    base = models.load(
        options.base,
        machine.device,
        machine.dtype,
        vae=options.vae,
        text_encoders=options.text_encoders,
        clip_skip=options.clip_skip,
        **{key: getattr(options, key) for key in NOISE},
    )
    notices = base.notices + clip_skip.settle(base, options.clip_skip, adapters)
    print(base.loaded_event.sentence, *map(_note, notices), sep="\n", file=sys.stderr)
    shortcuts.take(base)
    return base


def note_failure(base: Base) -> None:
    """Says on standard error what drawing could not do as fast as it might."""
    from lora_studio.sampling import shortcuts

    if (warned := shortcuts.warning(base)) is not None:
        print(_note(warned), file=sys.stderr)


def _note(notice: Warned) -> str:
    return f"Note: {StudioError(notice.what, where=notice.where, do=notice.do)}"


def _recipe(options: SheetOptions, x: Axis, y: Axis | None, adapters: SheetAdapters) -> Grid:
    from lora_studio.sampling.recipe import grid

    recorded = [
        {"name": name, "weight": weight, "sha256": _sha256(path)} for name, (path, weight) in adapters.placed.items()
    ]
    same = {key: getattr(options, key) for key in ("prompt", "seed", *NOISE)} | ImageSettings.of(options).model_dump()
    return grid(x=x, y=y, adapters=recorded, base=Path(options.base).name, version=__version__, **same)


def _sheet(options: SheetOptions, recipe: Grid, settings: Settings, paths: list[Path]) -> tuple[Grid, bytes]:
    """``recipe`` with what is known of the base model once it is loaded; and the sheet, a PNG that holds it."""
    from lora_studio.adapters import read
    from lora_studio.sampling.grid import render
    from lora_studio.sampling.recipe import to_png

    note_unknown([cell.prompt for row in recipe.cells for cell in row], options)
    adapters = [read(path) for path in paths]
    base = load_base(options, settings, [(path.name, one) for path, one in zip(paths, adapters, strict=True)])
    cells = [cell for row in recipe.cells for cell in row]
    images = render(base, adapters, cells, ImageSettings.of(options))
    note_failure(base)
    used = {"base_sha256": base.sha256(), "parts": base.given_sha256(), "clip_skip": base.clip_skip}
    whole = recipe.model_copy(update=used)
    return whole, to_png(whole, images)


def _sha256(path: Path) -> str:
    """Of an adapter's file, or of the weights in a folder that peft wrote."""
    return files.sha256(path / "adapter_model.safetensors" if path.is_dir() else path)


def _saved(path: Path, sheet: bytes) -> Path:
    """Writes the sheet, as a WebP where ``path`` says so. One that is too large for that is kept as a PNG."""
    from lora_studio.sampling.picture_file import to_webp

    if path.suffix.lower() == _WEBP:
        try:
            sheet = to_webp(sheet)
        except SettingsError as error:
            path = files.free(path.with_suffix(".png"))
            print(f"Note: {error.what} It is saved as {path.name}.", file=sys.stderr)
    files.write(path, sheet)
    return path


def _destination(out: Path | None, name: str) -> Path:
    if out is None:
        return files.free(runs.pictures_folder(runs.OUTPUTS.resolve()) / f"{name}.png")
    path = out.expanduser()
    path = path if path.suffix.lower() in (".png", _WEBP) else path.with_name(f"{path.name}.png")
    if path.exists():
        raise SettingsError(
            f"{path} exists already.", where="-o", do="Choose another name: no command overwrites a file."
        )
    return path.resolve()
