"""``generate``: prompts and adapters -> images."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_studio import __version__, files, runs
from lora_studio.adapters.recipe import MOST_WEIGHT
from lora_studio.cli.drawing import NOISE, DrawingOptions, load_base, note_failure, note_unknown, suited
from lora_studio.cli.options import duration, like, of_class, tell
from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.errors import AdapterError, SettingsError
from lora_studio.sampling import picture_file
from lora_studio.sampling.image_settings import FromImage, ImageSettings
from lora_studio.sampling.picture_recipe import PictureRecipe, StartedFrom, UsedAdapter

if TYPE_CHECKING:
    from PIL import Image

    from lora_studio.models import Base


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
    start: Annotated[
        Path | None, typer.Option("--start", metavar="FILE", help="A picture to draw over.", show_default=False)
    ] = None
    strength: Annotated[
        float, typer.Option(min=0, max=1, help="How much of it is drawn anew: 0 nothing, 1 everything.")
    ] = 0.6
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
    start = None if options.start is None else _start(options.start, options.strength)
    adapters = [parse_adapter(text) for text in options.adapters]
    began = time.monotonic()
    paths = _draw(options, adapters, settings, start)
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
        AdapterError: there is no such file, or the weight is out of range.
    """
    head, colon, tail = text.rpartition(":")
    try:
        file, weight = (head, float(tail)) if colon and head and not Path(text).exists() else (text, 1.0)
    except ValueError:
        file, weight = text, 1.0
    if not abs(weight) <= MOST_WEIGHT:
        raise AdapterError(
            f"The weight of {Path(file).name} is {weight:g}.",
            where=where,
            do="Give a number from −10 to 10; 0.5 to 1 is usual.",
        )
    path = Path(file).expanduser()
    if not path.exists():
        raise AdapterError(
            f"There is no adapter {path}.",
            where=where,
            do="Give the path of a .safetensors file, with its weight after a colon.",
        )
    return path.resolve(), weight


def _start(path: Path, strength: float) -> FromImage:
    """The picture to draw over. Raises SettingsError if there is none."""
    path = path.expanduser().resolve()
    if not path.is_file():
        raise SettingsError(f"There is no picture {path}.", where="--start", do="Give the path of a picture.")
    return FromImage(path=str(path), sha256=files.sha256(path), strength=strength)


def _draw(
    options: GenerateOptions, adapters: list[tuple[Path, float]], settings: Settings, start: FromImage | None
) -> list[Path]:
    """Loads the model and generates prompt by prompt, so that each prompt's images are saved as soon as they exist."""
    from lora_studio.adapters import read
    from lora_studio.models import inject
    from lora_studio.sampling.generate import generate as draw
    from lora_studio.sampling.generate import sampling
    from lora_studio.sampling.start import from_image, opened

    note_unknown(options.prompts, options)
    loaded = [(read(path), weight) for path, weight in adapters]
    named = [(path.name, adapter) for (path, _), (adapter, _) in zip(adapters, loaded, strict=True)]
    base = load_base(options, settings, named)
    inject.load_adapters(base, loaded)
    how, recipe = ImageSettings.of(options), _recipe(options, adapters, base, start)
    begin = None if start is None else from_image(base, opened(start), sampling(base, how), start.strength)
    seeds, paths = range(options.seed, options.seed + options.count), []
    for prompt in options.prompts:
        images = draw(base, [prompt] * options.count, seeds, how, start=begin)
        paths += [_save(image, recipe, prompt, seed, options.folder) for image, seed in zip(images, seeds, strict=True)]
    note_failure(base)
    return paths


def _recipe(
    options: GenerateOptions, adapters: list[tuple[Path, float]], base: Base, start: FromImage | None
) -> PictureRecipe:
    """The recipe of every image, but for its prompt, seed and size."""
    noise = {key: getattr(options, key) for key in NOISE}
    return PictureRecipe(
        **{key: getattr(ImageSettings.of(options), key) for key in ImageSettings.model_fields},
        **noise,
        base=Path(options.base).name,
        base_sha256=base.sha256(),
        parts=base.given_sha256(),
        clip_skip=base.clip_skip,
        adapters=tuple(UsedAdapter.of(path, weight) for path, weight in adapters),
        start=start and StartedFrom(name=Path(start.path).name, sha256=start.sha256, strength=start.strength),
        version=__version__,
    )


def _save(image: Image.Image, recipe: PictureRecipe, prompt: str, seed: int, folder: Path) -> Path:
    """Writes one image, with its recipe in the header, under a name that is not taken."""
    scale = recipe.hires.scale if recipe.hires else 1
    size = {"width": recipe.width or round(image.width / scale), "height": recipe.height or round(image.height / scale)}
    own = recipe.model_copy(update={"prompt": prompt, "seed": seed, **size})
    path = files.free(folder.resolve() / picture_file.file_name(prompt, seed))
    files.write(path, picture_file.to_png(image, own))
    return path
