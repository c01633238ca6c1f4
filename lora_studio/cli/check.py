"""``check``: whether an adapter's file is intact, and whether a run from its recipe would reproduce it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from lora_studio import __version__
from lora_studio.adapters import detect, foreign
from lora_studio.adapters import recipe as recipes
from lora_studio.adapters.recipe import Difference
from lora_studio.cli import adapters as shared
from lora_studio.cli import resize
from lora_studio.cli.options import AsJson, TextEncoders, Vae, tell
from lora_studio.config.specs import SPECS
from lora_studio.errors import DatasetError, ModelError

if TYPE_CHECKING:
    from lora_studio.adapters import Adapter


class Repeat(NamedTuple):
    """Whether a run from the recipe would reproduce the file."""

    verdict: str
    """``same``, ``different``, ``unknown`` (not everything could be compared), ``blend`` or ``none`` (no recipe)."""
    differences: list[Difference]
    unknown: list[str]


_WORDS = {
    "same": "A run from its recipe would give the same adapter on the same kind of device.",
    "different": "A run from its recipe would give another adapter:",
    "unknown": "What could be compared is the same. A run from its recipe would give the same adapter if the rest is "
    "the same too:",
    "blend": "It is a blend: blending the same adapters gives the same file. The recipe command prints how.",
    "none": "It has no recipe, so the run cannot be repeated.",
}


def check(
    file: shared.Source,
    base: Annotated[
        str,
        typer.Option(
            help="The base model, to compare with the recipe's.", show_default="the starter, if the recipe names it"
        ),
    ] = "",
    vae: Vae = "",
    text_encoders: TextEncoders = [],  # noqa: B006 - typer copies it
    data: Annotated[Path | None, typer.Option(help="The folder of pictures, to compare with the recipe's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check an adapter's file, and whether a run from its recipe would reproduce it."""
    path = shared.existing(file)

    from lora_studio import adapters

    adapter = adapters.read(path)
    warnings = list(_warnings(adapter, path))
    noticed = _of_base(base, vae, text_encoders)
    repeat = _repeat(adapter, base, [vae] * bool(vae) + text_encoders, data)
    result = {
        "file": path,
        "family": adapter.family,
        "method": adapter.kind.name,
        "rank": adapter.rank,
        "modules": len(adapter.changes),
        "sound": not warnings,
        "warnings": warnings,
        "verdict": repeat.verdict,
        "differences": [one._asdict() for one in repeat.differences],
        "unknown": repeat.unknown,
        "base_warnings": noticed,
    }
    lines = [
        f"{path.name}: {_held(adapter)}; all values are finite.",
        *(f"Warning: {warning}" for warning in warnings),
        *(f"Warning: {warning}" for warning in noticed),
        _WORDS[repeat.verdict],
        *(
            f"  {what}: {recorded or 'none'} in the recipe, {found or 'none'} here"
            for what, recorded, found in repeat.differences
        ),
        *(f"  not compared: {what}" for what in repeat.unknown),
    ]
    tell(result, lines, as_json)


def _held(adapter: Adapter) -> str:
    words = f", with the learned word {' and '.join(adapter.embeddings)}" if adapter.embeddings else ""
    if not adapter.changes:
        return f"{adapter.kind.title} for {detect.label(adapter.family)}{words}"
    count = len(adapter.changes)
    return f"{count} modules for {detect.label(adapter.family)}, {adapter.kind.title}, rank {adapter.rank}{words}"


def _warnings(adapter: Adapter, path: Path) -> Iterator[str]:
    """What is wrong with a file that can be read."""
    if sentence := foreign.contradiction(adapter.metadata, adapter.family):
        yield sentence
    if adapter.family == "unknown":
        yield "its shapes fit no base model that the studio knows."
    if path.is_file() and (told := adapter.metadata.get("sshs_model_hash")) and told != _hash(path):
        yield "its tensors do not match the hash in its header: it was changed or damaged after it was saved."
    if not any(change.acts for change in adapter.changes.values()) and not adapter.embeddings:
        yield "it changes nothing: it was saved before it learned anything."


def _of_base(base: str, vae: str, text_encoders: list[str]) -> list[str]:
    """What is noticed of the base model that is named, by its headers; or why it could not be loaded.

    Raises:
        ModelError: one of the files beside it does not exist.
    """
    from lora_studio.families.weights import require_given

    require_given(vae, text_encoders)
    if not base:
        return []
    from lora_studio.models import inspection

    try:
        return [notice.what for notice in inspection.notices(base, vae, text_encoders)]
    except ModelError as error:
        return [error.what]


def _hash(path: Path) -> str:
    """SHA-256 of a file's bytes after its header."""
    from lora_studio import adapters

    with open(path, "rb") as file:
        file.seek(adapters.header(path).data_start)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _repeat(adapter: Adapter, base: str, parts: list[str], data: Path | None) -> Repeat:
    recipe = recipes.read(adapter.metadata)
    if not isinstance(recipe, recipes.Training):
        return Repeat("blend" if recipe else "none", [], [])
    base_sha256, images, unknown = recipe.base_sha256, recipe.images, []
    if base or recipe.base == "starter":
        from lora_studio.families.weights import sha256_of

        base_sha256 = sha256_of(shared.base_path(base or recipe.base))
    else:
        unknown.append(f"the base model {recipe.base} (name yours with --base)")
    others, missing = _parts(recipe, parts)
    unknown += missing
    pairs: list[Difference] = []
    if data and recipe.pairs:
        pairs = _of_pairs(recipe, data)
    elif data:
        images = _trained_on(recipe, data)
    elif recipe.pairs:
        unknown.append(f"the {len(recipe.pairs)} pairs of {recipe.pairs[0].kind} (name their file with --data)")
    else:
        unknown.append(f"the {len(recipe.images)} pictures (name their folder with --data)")
    differences = [
        *recipes.compare(recipe, base_sha256=base_sha256, images=images, versions=_versions(recipe.versions)),
        *pairs,
        *others,
        *_own(recipe, adapter.metadata),
    ]
    return Repeat("different" if differences else "unknown" if unknown else "same", differences, unknown)


def _parts(recipe: recipes.Training, given: list[str]) -> tuple[list[Difference], list[str]]:
    """The recipe's files beside the base model, compared with those that are ``given``, under any name: the
    differences, and what could not be compared.
    """
    from lora_studio.families.weights import sha256_of

    present = {sha256_of(Path(path).expanduser()): Path(path).name for path in given}
    missing = [name for name, sha256 in recipe.parts.items() if sha256 not in present]
    others = [name for sha256, name in present.items() if sha256 not in recipe.parts.values()]
    if others:
        return [Difference("files beside the base model", ", ".join(missing), ", ".join(others))], []
    return [], [f"{name}, a file beside the base model (name yours with --vae or --text-encoders)" for name in missing]


def _own(recipe: recipes.Training, metadata: Mapping[str, str]) -> Iterator[Difference]:
    """Differences in the file itself: the run was stopped, the file was changed afterwards, or the settings are those
    of another version.
    """
    steps = recipe.settings.get("steps")
    if isinstance(steps, int) and recipe.steps < steps:
        yield Difference("steps", f"{recipe.steps} of {steps} done", f"all {steps}")
    if resized := metadata.get(resize.KEY):
        yield Difference("resized after training", resized[:100], "not resized")
    if foreign := sorted(recipe.settings.keys() - SPECS.keys()):
        yield Difference("settings", ", ".join(foreign)[:100], "")


def _of_pairs(recipe: recipes.Training, data: Path) -> list[Difference]:
    """Whether the file ``data`` holds the pairs that the recipe records."""
    from lora_studio.dataset import slider_pairs

    present = [recipes.PairRecord(**asdict(pair)) for pair in slider_pairs.read(data.expanduser())]
    if present == recipe.pairs:
        return []
    return [Difference(f"pairs of {recipe.pairs[0].kind}", f"{len(recipe.pairs)} pairs", f"others in {data.name}")]


def _trained_on(recipe: recipes.Training, data: Path) -> list[recipes.ImageRecord]:
    """The pictures in ``data`` that a run would train on, without those for validation."""
    from lora_studio.dataset import folder, manifest
    from lora_studio.dataset.batch_sampler import split

    keys = ("validation_share", "seed", "nested")
    share, seed, nested = (recipe.settings.get(key, SPECS[key].default) for key in keys)
    dataset = folder.scan(data.expanduser(), nested=bool(nested))
    if dataset.blocking:
        raise DatasetError(dataset.blocking[0].what, where=data, do=dataset.blocking[0].do)
    train, _ = split(dataset.pictures, share, seed)
    chosen = [dataset.pictures[index] for index in train]
    return [
        recipes.ImageRecord(name=one.path.name, sha256=one.sha256, prepared=manifest.prepared(one)) for one in chosen
    ]


def _versions(names: Iterable[str]) -> dict[str, str]:
    """The installed versions of the packages that a recipe names."""
    found = {"lora_studio": __version__, "python": platform.python_version()}
    for name in names:
        try:
            found.setdefault(name, importlib.metadata.version(name))
        except (importlib.metadata.PackageNotFoundError, ValueError):
            continue  # not installed, which compare reports
    return found
