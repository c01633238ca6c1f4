"""What the page asks the renderer for: the mix, the same picture without adapters, and sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from lora_studio.adapters import blend_methods, detect, metadata
from lora_studio.config.settings import Settings, key_of
from lora_studio.config.specs import OF_BASE, SPECS, allowed
from lora_studio.errors import ModelError, SettingsError
from lora_studio.families import registry
from lora_studio.jobs.renderer import Blending, ImageSpec, Placed, Side
from lora_studio.runs import library
from lora_studio.runs.library import Origin
from lora_studio.ui import form
from lora_studio.ui.pages.library import details
from lora_studio.ui.pages.mix.mixture import HIGH, LOW, Mix, MixRow
from lora_studio.ui.paths import tidy

FIRST_LOOK = 6
"""Denoising steps of the rough picture that comes first."""
READING = tuple(key for key in OF_BASE if key != "base")
"""Settings on how a base model is read."""
_TYPED = dict.fromkeys(("text", "lines"), str | None)
"""What fields hold, by the kind of their settings; a draft from the browser may hold anything."""
_MOST_CELLS = 64
_MOST_RUNS = 50
"""The latest runs, whose base models are offered."""


class Scene(NamedTuple):
    """What is drawn, as the page's fields have it. An empty number field is None."""

    base: str
    prompt: str
    negative: str
    seed: float | None
    steps: float | None
    guidance: float | None
    prompt_weights: bool = True
    base_read: Mapping[str, Any] = {}
    """How the base model is read: the settings ``READING``; the default where one is missing."""


class ChosenBlend(NamedTuple):
    """How the adapters are blended, as the page's fields have it."""

    method: str
    parameters: dict[str, float | None]
    """The rank and the method's parameters by key; None where a field is empty."""


class Spread(NamedTuple):
    """A sheet's weights, as the page's fields have them: ``count`` of them from ``start`` to ``stop``."""

    start: float | None
    stop: float | None
    count: float | None

    def weights(self) -> tuple[float, ...]:
        """The weights, evenly spaced.

        Raises:
            SettingsError: a number is missing or out of range.
        """
        start, stop, count = self
        if start is None or stop is None or not (LOW <= start <= HIGH and LOW <= stop <= HIGH) or start == stop:
            raise SettingsError(
                "A sheet needs two different weights from −2 to 2 to go between.", do="0 to 1.5 is a usual range."
            )
        if count is None or count != int(count) or not 2 <= count <= 12:
            raise SettingsError(
                "A sheet has from 2 to 12 weights along each side.", do="Use 7 for a strip, 4 for a grid."
            )
        return tuple(round(start + (stop - start) * index / (count - 1), 4) for index in range(int(count)))


def mixed(mix: Mix, scene: Scene, blending: Blending | None) -> ImageSpec:
    """The image of the mix. The sum needs no blending; every other method is drawn as it would be saved.

    Raises:
        SettingsError: a number of the scene is out of range.
        ModelError: no base model is named.
    """
    return ImageSpec(adapters=tuple(map(_placed, mix.rows)), blending=blending, first=FIRST_LOOK, **_scene(mix, scene))


def plain(mix: Mix, scene: Scene) -> ImageSpec:
    """The same image without adapters, its prompt read as with them. Raises as ``mixed`` does."""
    spec, family = ImageSpec(**_scene(mix, scene)), registry.named(mix.family)
    stated = metadata.common_clip_skip((row.clip_skip for row in mix.rows), family.clip_skips if family else ())
    return spec if spec.clip_skip else spec.model_copy(update={"clip_skip": stated})


def sheet(mix: Mix, scene: Scene, keys: Sequence[str | None], spread: Spread) -> ImageSpec:
    """A sheet: the weights of the first adapter across, and of the second, if there is one, down.

    Raises:
        SettingsError: an adapter is not chosen, or a number is out of range.
        ModelError: no base model is named.
    """
    rows = [row.key for row in mix.rows]
    indices = [rows.index(key) for key in keys if key in rows]
    if len(set(indices)) < len(keys):
        raise SettingsError(
            "A sheet needs an adapter, and a grid needs two different ones.", do="Choose them from the mix."
        )
    sides = [Side(adapter=index, weights=spread.weights()) for index in indices]
    if len(sides[0].weights) ** len(sides) > _MOST_CELLS:
        raise SettingsError(f"That would be more than {_MOST_CELLS} images.", do="Use fewer weights.")
    shown = tuple(
        one.model_copy(update={"name": f"{one.name}, own blocks"}) if one.blocks else one
        for one in map(_placed, mix.rows)
    )
    return ImageSpec(adapters=shown, across=sides[0], down=sides[1] if len(sides) > 1 else None, **_scene(mix, scene))


def blending(chosen: ChosenBlend) -> Blending | None:
    """The blend for an image; None for the plain sum.

    Raises:
        SettingsError: a parameter is out of range.
    """
    given = {key: value for key, value in chosen.parameters.items() if value is not None}
    checked = blend_methods.checked(chosen.method, given)
    rank = int(checked.pop(blend_methods.RANK.key))
    if blend_methods.named(chosen.method).is_plain_sum and not rank:
        return None
    return Blending(method=chosen.method, rank=rank, parameters=checked)


def bases(outputs: Path, family: str) -> list[tuple[str, str]]:
    """Label and name of the base models that fit adapters of ``family``: the starter, and those of the latest runs."""
    found = {"starter": "Built-in starter"} if family in ("", "starter") else {}
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
        key: form.from_field(SPECS[key], raw) if isinstance(raw, _TYPED.get(SPECS[key].kind, object)) else raw
        for key, raw in fields.items()
        if key in READING
    }
    try:
        settings = Settings(**values).flat()
    except ValidationError as error:
        key = key_of(error.errors()[0])
        what = f"{SPECS[key].label} must be {allowed(key)}."
        raise SettingsError(what, where="Image › More", do="Change it to see the image.") from None
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
        raise SettingsError(
            f"{label} must be a {'whole ' if whole else ''}number from {low:g} to {high:,.0f}.",
            do="Change the number to see the image.",
        )
    return int(value) if whole else float(value)


def _placed(row: MixRow) -> Placed:
    return Placed(path=row.path, weight=row.weight, name=row.name, blocks=row.factors)


def _scene(mix: Mix, scene: Scene) -> dict[str, Any]:
    """The scene as fields of a spec."""
    base = tidy(scene.base)
    if not base:
        raise ModelError(
            f"No base model is named. The adapters were made for {detect.label(mix.family)}.",
            where="Base model",
            do="Paste the path of one: a diffusers folder or a .safetensors checkpoint.",
        )
    return {
        "base": base,
        "prompt": (scene.prompt or "").strip(),
        "negative": (scene.negative or "").strip(),
        "prompt_weights": scene.prompt_weights,
        "seed": number("preview_seed", "Seed", scene.seed),
        "steps": number("preview_steps", "Steps", scene.steps),
        "guidance": number("guidance", "Guidance", scene.guidance),
        **read_from(scene.base_read),
    }
