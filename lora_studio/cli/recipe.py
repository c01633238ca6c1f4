"""``recipe``: how an adapter was made, as a preset that ``train`` takes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from lora_studio import adapters
from lora_studio.adapters import recipe as recipes
from lora_studio.cli import adapters as shared
from lora_studio.cli.options import AsJson, tell
from lora_studio.config.settings import SPECS, check
from lora_studio.errors import AdapterError


def recipe(file: shared.Source, as_json: AsJson = False) -> None:
    """Print how an adapter was made: TOML for train --preset, or a blend's command."""
    path = shared.existing(file)
    found = found_in(path)
    training = isinstance(found, recipes.Training)
    settings, dropped = open_recipe(found, path) if training else ({}, [])
    lines = _training(found, path.name, settings, dropped) if training else _blend(found)
    tell(
        {**found.model_dump(), **({"settings": settings, "unknown_settings": dropped} if training else {})},
        lines,
        as_json,
    )


def found_in(path: Path) -> recipes.Training | recipes.Blend:
    """The recipe in the header of the file at ``path``.

    Raises:
        AdapterError: it holds none.
    """
    if found := recipes.read(adapters.header(path).metadata):
        return found
    raise AdapterError(
        f"{path.name} holds no recipe of the studio.",
        where=path,
        do="It was made elsewhere, or saved without one for privacy; inspect shows what its header tells.",
    )


def open_recipe(found: recipes.Training, path: Path) -> tuple[dict[str, Any], list[str]]:
    """Settings to train with again, checked, and the names of those that this version does not know.

    Raises:
        SettingsError: a value is out of its bounds.
    """
    known = {key: value for key, value in found.settings.items() if key in SPECS}
    check(known, where=path)
    return known, sorted(found.settings.keys() - known.keys())


def _training(found: recipes.Training, name: str, settings: dict[str, Any], dropped: list[str]) -> list[str]:
    import tomli_w

    notes = [
        f"{len(found.images)} pictures, {found.steps} steps done",
        f"base model: {_line(found.base)} (sha256 {_line(found.base_sha256) or 'unknown'})",
        "versions: " + ", ".join(f"{_line(library)} {_line(version)}" for library, version in found.versions.items()),
    ]
    notes += [f"unknown to this version, left out: {', '.join(map(_line, dropped))}"] * bool(dropped)
    preset = tomli_w.dumps(
        {"title": f"Recipe of {name}", "blurb": "As the adapter's header tells it.", "settings": settings}
    )
    return [*(f"# {note}" for note in notes), preset.rstrip()]


def _blend(found: recipes.Blend) -> list[str]:
    words = [
        "blend",
        *(f"{one.name}.safetensors:{one.weight:g}" for one in found.ingredients),
        "--method",
        found.method,
    ]
    words += ["--rank", str(found.rank)] * bool(found.rank)
    words += ["--density", f"{found.density:g}"] * (found.method in ("ties", "dare", "prune")) + [
        "--seed",
        str(found.seed),
    ] * (found.method == "dare")
    blocks = [
        f"{number}:{block}={factor:g}"
        for number, one in enumerate(found.ingredients, 1)
        for block, factor in one.blocks.items()
    ]
    words += [word for block in blocks for word in ("--block", block)]
    hashes = [
        f"# {_line(one.name)}: sha256 of its tensors {_line(one.sha256) or 'unknown'}" for one in found.ingredients
    ]
    return [
        "# A blend. This makes it again:",
        f"python3 app.py {_line(shlex.join(words))} -o blend.safetensors",
        *hashes,
    ]


def _line(text: str) -> str:
    """A stranger's text within one line."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
