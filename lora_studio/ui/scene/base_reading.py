"""Base models to draw with, and how each is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lora_studio.config.settings import Settings, key_of
from lora_studio.config.specs import OF_BASE, SPECS, allowed
from lora_studio.errors import SettingsError
from lora_studio.language import tr
from lora_studio.runs import library
from lora_studio.runs.library import Origin
from lora_studio.ui.fields import from_field
from lora_studio.ui.pages.library import details
from lora_studio.ui.paths import tidy
from lora_studio.ui.scene.mixture import Mix

READING = tuple(key for key in OF_BASE if key != "base")
"""Settings on how a base model is read."""
_TYPED = dict.fromkeys(("text", "lines"), str | None)
"""What fields hold, by the kind of their settings; a draft from the browser may hold anything."""
_MOST_RUNS = 50
"""The latest runs, whose base models are offered."""


def bases(outputs: Path, family: str) -> list[tuple[str, str]]:
    """Label and name of the base models that fit adapters of ``family``: the starter, and those of the latest runs."""
    found = {"starter": tr("Built-in starter")} if family in ("", "starter") else {}
    for run in _runs(outputs, family):
        if base := details.base_of_run(run, outputs).get("base"):
            found.setdefault(base, Path(base).name)
    return [(label, base) for base, label in found.items()]


def reading(base: str, mix: Mix, outputs: Path) -> dict[str, Any]:
    """How ``base`` was read by the first run of the mix that was trained on it, else by the latest one: the settings
    ``READING`` that are not the default. The clip skip is the adapters' own and comes from the mix's runs alone.
    """
    own = [row.run for row in mix.rows if row.run]
    for run in dict.fromkeys((*own, *_runs(outputs, mix.family))):
        known = details.base_of_run(run, outputs)
        if known and tidy(known["base"]) == tidy(base):
            return _changed({key: known[key] for key in READING if run in own or key != "clip_skip"})
    return {}


def read_from(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The settings ``READING`` in the page's fields that are not the default.

    Raises:
        SettingsError: one is no such setting, or out of range.
    """
    values = {
        key: from_field(SPECS[key], raw) if isinstance(raw, _TYPED.get(SPECS[key].kind, object)) else raw
        for key, raw in fields.items()
        if key in READING
    }
    try:
        settings = Settings(**values).flat()
    except ValidationError as error:
        key = key_of(error.errors()[0])
        what = tr("{label} must be {allowed}.", label=SPECS[key].label, allowed=allowed(key))
        raise SettingsError(what, where=tr("Picture › More"), do=tr("Change it to see the picture.")) from None
    paths = {"vae": tidy(settings["vae"]), "text_encoders": [tidy(path) for path in settings["text_encoders"]]}
    return _changed({key: (settings | paths)[key] for key in READING})


def _changed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value != SPECS[key].default}


def _runs(outputs: Path, family: str) -> list[str]:
    """The latest runs for ``family``."""
    entries = library.entries(outputs)
    return [one.run for one in entries if one.origin is Origin.RUN and one.family == family][:_MOST_RUNS]


def number(key: str, label: str, value: float | None) -> float | int:
    """The number of the field ``label``, checked as the setting ``key``.

    Raises:
        SettingsError: it is missing or out of range.
    """
    spec = SPECS[key]
    low, high = spec.low or 0.0, spec.high or 0.0
    whole = spec.kind == "integer"
    if value is None or not low <= value <= high or (whole and value != int(value)):
        bounds = {"label": label, "low": low, "high": high}
        what = (
            tr("{label} must be a whole number from {low:g} to {high:,.0f}.", **bounds)
            if whole
            else tr("{label} must be a number from {low:g} to {high:,.0f}.", **bounds)
        )
        raise SettingsError(what, do=tr("Change the number to see the picture."))
    return int(value) if whole else float(value)
