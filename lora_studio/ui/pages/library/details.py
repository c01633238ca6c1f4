"""One adapter in full: its facts and its recipe."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lora_studio import adapters
from lora_studio.adapters import recipe
from lora_studio.adapters.recipe import Blend, Training
from lora_studio.config.settings import SPECS, check
from lora_studio.errors import SettingsError, StudioError
from lora_studio.runs import Run
from lora_studio.runs.library import Entry, Origin
from lora_studio.ui import downloads, tabs, words
from lora_studio.ui.pages.library import cards

_METHODS = {"lora": "LoRA", "locon": "LoRA with convolutions", "dora": "DoRA", "loha": "LoHa", "lokr": "LoKr"}
_DIALECTS = {"kohya": "kohya (ComfyUI, Forge, A1111)", "diffusers": "diffusers", "peft": "peft"}


def html(entry: Entry, outputs: Path) -> str:
    """Picture, name, facts and recipe."""
    head = f'<div class="head">{cards.picture(entry, outputs)}<div><h3>{words.text(cards.title(entry))}</h3>{cards.facts(entry)}</div></div>'
    return f'<div class="details">{head}{_list(_facts(entry))}{_recipe(recipe_of(entry))}</div>'


def ways_on(entry: Entry, outputs: Path) -> str:
    """Links: to the file, and to the rooms where it is exported and mixed."""
    try:
        download = downloads.link(Path(entry.path), outputs, "Download")
    except OSError as error:
        download = words.notice(
            "wrong",
            f"It cannot be offered for download: {error.strerror or error}.",
            do="Free space on the disk, then choose it again.",
        )
    name = cards.key(entry, outputs)
    return f'<div class="ways">{download}{tabs.link("mix", name, "Mix…")}{tabs.link("export", name, "Export…")}</div>'


def _list(facts: Iterable[tuple[str, str]]) -> str:
    return (
        "<dl>"
        + "".join(f"<dt>{words.text(name)}</dt><dd>{words.text(value)}</dd>" for name, value in facts if value)
        + "</dl>"
    )


def _facts(entry: Entry) -> list[tuple[str, str]]:
    alpha = "none told, so its scale is 1" if entry.alpha is None else f"{entry.alpha:g}"
    return [
        ("Trigger", entry.trigger), ("Method", _METHODS.get(entry.method, entry.method)), ("Format", _DIALECTS.get(entry.dialect, entry.dialect)),
        ("Rank", f"{entry.rank}{', mixed' if entry.mixed_ranks else ''}" if entry.rank else ""), ("Alpha", alpha),
        ("Layers", f"{entry.modules:,}"), ("Run", entry.run), ("File", Path(entry.path).name),
    ]  # fmt: skip


def recipe_of(entry: Entry) -> Training | Blend | None:
    """The recipe in the file's header; None where there is none, or the file has gone."""
    try:
        return recipe.read(adapters.header(Path(entry.path)).metadata)
    except StudioError:
        return None


def _recipe(found: Training | Blend | None) -> str:
    if isinstance(found, Blend):
        rows = [(one.name, f"× {one.weight:g}") for one in found.ingredients]
        return f'<details class="recipe"><summary>Recipe: a blend ({words.text(found.method)})</summary>{_list(rows)}</details>'
    if isinstance(found, Training):
        known = [
            (SPECS[key].label, words.value(value))
            for key, value in found.settings.items()
            if key in SPECS and value not in ("", [], None)
        ]
        made = [
            ("Trained on", words.counted(len(found.images), "picture") if found.images else ""),
            ("Steps done", f"{found.steps:,}" if found.steps else ""),
        ]
        return f'<details class="recipe"><summary>Recipe: a training on {words.text(found.base or "an unnamed model")}</summary>{_list(made + known)}</details>'
    return '<p class="hint">Its header holds no recipe of the studio.</p>'


def can_open(entry: Entry) -> bool:
    """Whether the settings that it was trained with are known."""
    found = recipe_of(entry)
    return isinstance(found, Training) or (found is None and entry.origin is not Origin.IMPORTED)


def settings(entry: Entry, outputs: Path) -> dict[str, Any]:
    """The settings that the adapter was trained with, for the form: a run's own, else what the recipe tells, which
    leaves out the folders.

    Raises:
        SettingsError: it was not trained here, or its settings are none that this version knows.
    """
    found = recipe_of(entry)
    if entry.origin is not Origin.IMPORTED and not isinstance(found, Blend):
        return Run(outputs / entry.run).settings().flat()
    if not isinstance(found, Training):
        raise SettingsError(
            f"{cards.title(entry)} has no training recipe.",
            do="Only adapters that the studio trained, with their recipe, can be trained again.",
        )
    told = {
        key: value
        for key, value in found.settings.items()
        if key in SPECS and key != "data" and (key != "base" or value == "starter")
    }
    checked = check(told, where=Path(entry.path).name)
    return {key: checked[key] for key in told}


def opened(entry: Entry, values: dict[str, Any]) -> str:
    """What is said of a recipe when it stands in the form: what it cannot fill in."""
    found = recipe_of(entry)
    missing = {"data": "the pictures", "base": "the base model"}
    folder, base = (words.text(found.settings.get(key, "")) if isinstance(found, Training) else "" for key in missing)
    rest = [
        f"{what}, which {'were' if key == 'data' else 'was'} called “{name}”"
        for (key, what), name in zip(missing.items(), (folder, base), strict=True)
        if key not in values and name
    ]
    advice = (
        f"It does not tell where they lie: choose {' and '.join(rest)}."
        if rest
        else "Start the training when you like."
    )
    return f'<div class="notice right" role="status"><b>The form holds the recipe of {words.text(cards.title(entry))}.</b><p>{advice}</p></div>'


def base_at_hand(entry: Entry, outputs: Path) -> str:
    """The base model to draw the adapter with: its run's own, or the starter for the starter's; empty where none is
    known or it has gone.
    """
    if entry.family == "starter":
        return "starter"
    try:
        base = Run(outputs / entry.run).settings().run.base if entry.run else ""
    except SettingsError:
        return ""
    return base if base and Path(base).exists() else ""


def subject(entry: Entry) -> str:
    """A prompt to draw the adapter with: the first of its previews, else its trigger and something plain."""
    found = recipe_of(entry)
    prompts = found.settings.get("preview_prompts") if isinstance(found, Training) else None
    first = str(prompts[0]) if isinstance(prompts, list) and prompts else "{trigger}, house"
    return first.replace("{trigger}", entry.trigger).strip(" ,")
