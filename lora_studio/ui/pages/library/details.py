"""One adapter in full: its facts and its recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_studio import adapters, files
from lora_studio.adapters import recipe
from lora_studio.adapters.blend_methods import METHODS, RANK, parameters
from lora_studio.adapters.kinds import KINDS
from lora_studio.adapters.recipe import Blend, Training
from lora_studio.config.settings import check
from lora_studio.config.specs import OF_BASE, SPECS
from lora_studio.errors import SettingsError, StudioError
from lora_studio.language import both, declared, number, tr
from lora_studio.runs import Run
from lora_studio.runs.library import Entry, Origin
from lora_studio.ui import downloads, sending, sharing, tabs, words
from lora_studio.ui.outcome import done
from lora_studio.ui.pages.library import cards, measured, measures

_DIALECTS = {"kohya": "kohya (ComfyUI, Forge, A1111)", "diffusers": "diffusers", "peft": "peft"}

_ELSEWHERE = {"data": tr("the pictures"), "vae": tr("the VAE"), "text_encoders": tr("the text encoders")}
"""Settings that are paths, which a recipe has only the last part of."""
_WAYS = {"draw": tr("Draw…"), "mix": tr("Mix…"), "export": tr("Export…")}
"""Rooms where an adapter is used, and what their links say."""


def html(entry: Entry, outputs: Path) -> str:
    """Picture, name, facts and recipe."""
    title = f"<h3>{words.text(cards.title(entry))}</h3>"
    head = f'<div class="head">{cards.picture(entry, outputs)}<div>{title}{cards.facts(entry)}</div></div>'
    found = measures.of(entry, outputs)
    facts = words.table([*(found.facts if found else []), *_facts(entry)])
    pictures = measured.html(entry, found, outputs) if found else ""
    return f'<div class="details">{head}{cards.made_for(entry)}{facts}{pictures}{_recipe(recipe_of(entry))}</div>'


def links(entry: Entry, outputs: Path) -> str:
    """Links to the file, and to the tabs where it is drawn with, mixed and exported."""
    try:
        download = downloads.link(Path(entry.path), outputs, tr("Download"))
    except OSError as error:
        download = words.notice(
            "wrong",
            tr("It cannot be downloaded: {reason}.", reason=files.reason(error)),
            do=files.advice(error),
        )
    name = cards.key(entry, outputs)
    sheet = sharing.link(Path(entry.path), sharing.shown_by(entry, outputs), outputs, cards.stem(entry))
    ways = "".join(tabs.link(tab, name, label) for tab, label in _WAYS.items())
    return f'<div class="ways">{download}{ways}{sending.buttons(name, outputs)}{sheet}</div>'


def _facts(entry: Entry) -> list[tuple[str, str]]:
    alpha = tr("none, so its scale is 1") if entry.alpha is None else number(entry.alpha, "g")
    alpha = alpha if entry.modules else ""
    rank = tr("{rank}, mixed", rank=entry.rank) if entry.mixed_ranks else str(entry.rank)
    title = entry.title if entry.title not in (Path(entry.path).stem, entry.run) else ""
    return [
        (tr("Title"), title),
        (tr("Trigger word"), entry.trigger),
        (tr("Learned words"), ", ".join(entry.words)),
        (tr("Kind"), declared(KINDS[entry.method].title)),
        (tr("Format"), _DIALECTS.get(entry.dialect, entry.dialect)),
        (tr("Rank"), rank if entry.rank else ""),
        (tr("Alpha"), alpha),
        (tr("Layers"), number(entry.modules) if entry.modules else ""),
        (tr("Run"), entry.run),
        (tr("File"), Path(entry.path).name),
    ]


def recipe_of(entry: Entry) -> Training | Blend | None:
    """The recipe in the file's header; None if there is none, or the file is gone."""
    try:
        return recipe.read(adapters.header(Path(entry.path)).metadata)
    except StudioError:
        return None


def _trained_on(found: Training) -> str:
    """Pictures or pairs; empty where the recipe names none."""
    if found.pairs:
        pairs = words.counted(len(found.pairs), "pair")
        of_pictures = found.pairs[0].pictures is not None
        return tr("{pairs} of pictures", pairs=pairs) if of_pictures else tr("{pairs} of prompts", pairs=pairs)
    if not found.images:
        return ""
    own = words.counted(len(found.images) - found.class_images, "picture")
    classes = words.counted(found.class_images, "class picture")
    return tr("{own}, {classes}", own=own, classes=classes) if found.class_images else own


def _recipe(found: Training | Blend | None) -> str:
    if isinstance(found, Blend):
        ingredients = [(one.name, f"× {number(one.weight, 'g')}") for one in found.ingredients]
        method = declared(METHODS[found.method].title)
        return _folded(tr("Recipe: a blend ({method})", method=method), [*ingredients, *_parameters(found)])
    if isinstance(found, Training):
        made = [
            (tr("Trained on"), _trained_on(found)),
            (tr("Steps done"), number(found.steps) if found.steps else ""),
            (tr("The base model predicts"), found.predicts),
        ]
        known = [
            (SPECS[key].label, words.value(value))
            for key, value in found.settings.items()
            if key in SPECS and value not in ("", [], None)
        ]
        base = found.base or tr("an unnamed base model")
        return _folded(tr("Recipe: trained on {base}", base=base), made + known)
    return f'<p class="hint">{words.text(tr("Its header contains no recipe of the studio."))}</p>'


def _parameters(found: Blend) -> list[tuple[str, str]]:
    """The rank that a blend was trimmed to, and the parameters of its method, by their labels."""
    values = ({RANK.key: found.rank} if found.rank else {}) | found.parameters
    labels = parameters()
    return [(declared(labels[key].label), words.value(value)) for key, value in values.items()]


def _folded(summary: str, rows: list[tuple[str, str]]) -> str:
    return f'<details class="recipe"><summary>{words.text(summary)}</summary>{words.table(rows)}</details>'


def can_open(entry: Entry) -> bool:
    """Whether the settings that it was trained with are known."""
    found = recipe_of(entry)
    return isinstance(found, Training) or (found is None and entry.origin is not Origin.IMPORTED)


def settings(entry: Entry, outputs: Path) -> dict[str, Any]:
    """The settings that the adapter was trained with, for the form: its run's, else those of its recipe, which has no
    folders.

    Raises:
        SettingsError: it has no training recipe, or a value in it is out of range.
    """
    found = recipe_of(entry)
    if entry.origin is not Origin.IMPORTED and not isinstance(found, Blend):
        return Run(outputs / entry.run).settings().flat()
    if not isinstance(found, Training):
        raise SettingsError(
            tr("{title} has no training recipe.", title=cards.title(entry)),
            do=tr("Only an adapter that the studio trained, with its recipe, can be trained again."),
        )
    known = {
        key: value
        for key, value in found.settings.items()
        if key in SPECS and key not in _ELSEWHERE and (key != "base" or value == "starter")
    }
    checked = check(known, where=Path(entry.path).name)
    return {key: checked[key] for key in known}


def opened(entry: Entry, values: dict[str, Any]) -> str:
    """The notice that the form holds a recipe, and what it does not have: pictures and base model are only named."""
    found = recipe_of(entry)
    recorded = found.settings if isinstance(found, Training) else {}
    missing = [
        tr("{what} (“{recorded}” at the time)", what=what, recorded=words.value(recorded[key]))
        for key, what in (*_ELSEWHERE.items(), ("base", tr("the base model")))
        if key not in values and recorded.get(key)
    ]
    advice = (
        tr("It does not say where they are: choose {missing}.", missing=both(missing))
        if missing
        else tr("Start when you like.")
    )
    return done(tr("The form now has the recipe of {title}.", title=cards.title(entry)), advice)


def base_at_hand(entry: Entry, outputs: Path) -> str:
    """The base model to draw the adapter with: its run's, or the starter for one made for it; empty if none is known or
    it is gone.
    """
    if entry.family == "starter":
        return "starter"
    base = base_of_run(entry.run, outputs).get("base", "")
    return base if base and Path(base).exists() else ""


def base_of_run(run: str, outputs: Path) -> dict[str, Any]:
    """Which base model the run of this name was trained on, and how it was read: the settings ``OF_BASE``; empty if
    they are unknown.
    """
    try:
        settings = Run(outputs / run).settings().flat() if run else {}
    except (SettingsError, OSError):
        return {}  # it only cannot be offered
    return {key: settings[key] for key in OF_BASE if key in settings}


def subject(entry: Entry) -> str:
    """A prompt to draw the adapter with: the first of its previews, else its trigger word and something plain."""
    found = recipe_of(entry)
    prompts = found.settings.get("preview_prompts") if isinstance(found, Training) else None
    first = str(prompts[0]) if isinstance(prompts, list) and prompts else "{trigger}, house"
    return first.replace("{trigger}", entry.trigger).strip(" ,")
