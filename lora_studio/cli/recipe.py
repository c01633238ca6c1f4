"""``recipe``: how an adapter was made, as a preset for ``train`` or as the command of a blend."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from lora_studio import adapters
from lora_studio.adapters import recipe as recipes
from lora_studio.adapters.blend_methods import RANK, option
from lora_studio.cli import adapters as shared
from lora_studio.cli.options import AsJson, tell
from lora_studio.config.settings import check
from lora_studio.config.specs import SPECS
from lora_studio.errors import AdapterError


def recipe(file: shared.Source, as_json: AsJson = False) -> None:
    """Print how an adapter was made: a preset for train --preset, or the command that repeats a blend."""
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
        f"{path.name} contains no recipe of the studio.",
        where=path,
        do="It was made elsewhere, or saved without a recipe for privacy; inspect shows what its header contains.",
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

    of = f"{len(found.pairs)} pairs of {found.pairs[0].kind}" if found.pairs else f"{len(found.images)} pictures"
    notes = [
        f"{of}, {found.steps} steps done",
        f"base model: {_line(found.base)} (sha256 {_line(found.base_sha256) or 'unknown'})",
        *(f"part of it: {_line(name)} (sha256 {_line(sha256)})" for name, sha256 in found.parts.items()),
        "versions: " + ", ".join(f"{_line(library)} {_line(version)}" for library, version in found.versions.items()),
    ]
    notes += [f"unknown to this version, left out: {', '.join(map(_line, dropped))}"] * bool(dropped)
    preset = tomli_w.dumps({"title": f"Recipe of {name}", "blurb": "From the adapter's header.", "settings": settings})
    return [*(f"# {note}" for note in notes), preset.rstrip(), *_pairs(found)]


def _pairs(found: recipes.Training) -> list[str]:
    """The pairs that were trained on, as comments; none for a run of pictures."""
    from lora_studio.dataset import slider_pairs
    from lora_studio.dataset.items import PromptPair

    if not found.pairs:
        return []
    text = slider_pairs.written([PromptPair(**pair.model_dump()) for pair in found.pairs])
    return [
        "",
        f"# The pairs of {found.pairs[0].kind}, for the file that data names:",
        *(f"# {line}" for line in text.splitlines()),
    ]


def _blend(found: recipes.Blend) -> list[str]:
    words = ["blend", *(f"{one.name}.safetensors:{_number(one.weight)}" for one in found.ingredients)]
    words += ["--method", found.method]
    given = ({RANK.key: found.rank} if found.rank else {}) | found.parameters
    words += [word for key, value in given.items() for word in (option(key), str(value))]
    blocks = [
        f"{number}:{block}={_number(factor)}"
        for number, one in enumerate(found.ingredients, 1)
        for block, factor in one.blocks.items()
    ]
    words += [word for block in blocks for word in ("--block", block)]
    hashes = [
        f"# {_line(one.name)}: sha256 of its tensors {_line(one.sha256) or 'unknown'}" for one in found.ingredients
    ]
    return [
        "# A blend. This command repeats it:",
        f"python3 app.py {_line(shlex.join(words))} -o blend.safetensors",
        *hashes,
    ]


def _number(value: float) -> str:
    """``value`` in as few digits as give it back exactly."""
    return f"{value:.0f}" if value == int(value) else repr(value)


def _line(text: str) -> str:
    """``text`` from a file of unknown origin, on one line: a newline in it would end the comment that it is in."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
