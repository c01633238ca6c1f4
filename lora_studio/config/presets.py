"""Presets: partial settings in TOML, layered over the defaults.

A preset's file holds ``title`` and ``blurb`` and, under ``[settings]``, the keys that it changes.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel

from lora_studio import files
from lora_studio.config.settings import Settings, check, layer
from lora_studio.config.slices import OptimizerSettings
from lora_studio.config.specs import SPECS, did_you_mean, from_text
from lora_studio.errors import SettingsError
from lora_studio.language import tr
from lora_studio.optim import registry as optimizers

FOLDER = Path(__file__).resolve().parents[2] / "presets"


class Preset(BaseModel):
    """A named, described set of changes to the defaults."""

    name: str
    title: str
    blurb: str
    settings: dict[str, Any] = {}
    """What it sets; with an optimizer also that one's usual rates, where the file gives none."""


_STRINGS = re.compile(
    r"""
    "{3} (?: \\. | [^\\] )*? (?: "{3} | \Z )   # over several lines, ended or not
    | '{3} .*? (?: '{3} | \Z )
    | " (?: \\. | [^"\\\n] )* "?
    | ' [^'\n]* '?
    | \# [^\n]*                                # a comment
    """,
    re.DOTALL | re.VERBOSE,
)
_DEEP = re.compile(r"(?<![\w-])(?:[\w-]++\s*\.\s*){8}")
"""A dotted key of nine parts or more. Settings need two; tomllib takes most of a minute for 50,000."""


def table(path: Path) -> dict[str, Any]:
    """What a TOML file holds, which may be of any origin.

    Raises:
        SettingsError: it cannot be read, or is not valid TOML.
    """
    try:
        text = path.read_text("utf-8-sig")
        if _DEEP.search(_STRINGS.sub("s", text)):
            raise SettingsError(
                tr("{name} has a key of more than eight parts, and no setting needs more than two.", name=path.name),
                where=path,
                do=tr("Fix that line."),
            )
        return tomllib.loads(text)
    except OSError as error:
        raise SettingsError(
            tr("{name} cannot be read: {reason}.", name=path.name, reason=error.strerror or error),
            where=path,
            do=tr("Check that the file exists and that you have permission to read it."),
        ) from None
    except (ValueError, RecursionError) as error:  # of numbers too long, and of brackets without end
        raise SettingsError(
            tr("{name} is not valid TOML: {error}.", name=path.name, error=error), where=path, do=tr("Fix that line.")
        ) from None


def read(path: Path) -> Preset:
    """The preset in one file.

    Raises:
        SettingsError: the file is not valid TOML, or has an entry, key or value that is unknown.
    """
    entries = table(path)
    if unknown := set(entries) - {"title", "blurb", "settings"}:
        word = sorted(unknown)[0]
        raise SettingsError(
            tr("{name} has the unknown entry {word!r}.", name=path.name, word=word),
            where=path,
            do=tr("Settings belong under [settings]; outside it only title and blurb are allowed."),
        )
    settings = entries.get("settings", {})
    if not isinstance(settings, dict):
        raise SettingsError(
            tr("{name}: settings must be a table.", name=path.name),
            where=path,
            do=tr("Write [settings] on a line of its own."),
        )
    check(settings, where=path.name)
    title, blurb = str(entries.get("title", path.stem)), str(entries.get("blurb", ""))
    return Preset(name=path.stem, title=title, blurb=blurb, settings=layer({}, settings))


def available(folder: Path = FOLDER) -> list[Preset]:
    """Every preset of ``folder``, in the order of their file names."""
    return [read(path) for path in sorted(folder.glob("*.toml"))]


def find(name: str, folder: Path = FOLDER, own: Path | None = None) -> Preset:
    """The preset called ``name``, or the one in a TOML file at the path ``name``.

    Args:
        own: the folder of the user's own presets.

    Raises:
        SettingsError: there is none; suggests the nearest name.
    """
    folders = [folder, *([own] if own else [])]
    for path in (*(place / f"{name}.toml" for place in folders), Path(name)):
        if path.suffix == ".toml" and os.path.isfile(path):
            return read(path)
    raise SettingsError(
        tr("There is no preset named {name!r}.", name=name),
        where="--preset",
        do=did_you_mean(name, [path.stem for place in folders for path in sorted(place.glob("*.toml"))]),
    )


def layered(
    preset: str | None,
    assignments: list[str],
    under: Settings | None = None,
    own: Path | None = None,
    **values: Any,
) -> Settings:
    """Settings in layers, each over the one before: the defaults (or ``under``), the preset, ``values`` that are not
    None, and assignments of the form ``key=value``.

    A learning rate stays with the optimizer that it was meant for. A layer that changes the optimizer and gives no rate
    brings the usual one (``layer``). The rates of a preset that names no optimizer are meant for the default one, and
    are left out where ``under`` has another.

    Args:
        own: as for ``find``.

    Raises:
        SettingsError: a preset, key or value is wrong.
    """
    merged = before(preset, under, own)
    assigned = {key: value for key, value in values.items() if value is not None}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise SettingsError(
                f"{assignment!r} is not of the form key=value.",
                where="--set",
                do="Write for example --set rank=8.",
            )
        assigned[key.strip()] = from_text(key.strip(), text.strip())
    return check(layer(merged, assigned))


def before(preset: str | None, under: Settings | None = None, own: Path | None = None) -> dict[str, Any]:
    """The settings that assignments and options are layered over, unchecked. Raises as ``find``."""
    merged = under.flat() if under else {}
    return layer(merged, _fitting(find(preset, own=own).settings, merged)) if preset else merged


def _fitting(settings: dict[str, Any], under: dict[str, Any]) -> dict[str, Any]:
    """A preset's settings without rates that are not meant for the optimizer of ``under``."""
    default = SPECS["optimizer"].default
    if "optimizer" in settings or not optimizers.rates_after(default, under.get("optimizer", default)):
        return settings
    return {key: value for key, value in settings.items() if key not in optimizers.RATES}


def rate_notes(
    settings: OptimizerSettings, assignments: list[str], earlier: Mapping[str, Any] | None = None
) -> list[str]:
    """What to know of the learning rate before a run begins: which one it is, where ``assignments`` chose an optimizer
    and no rate; the LoRA+ factor, where the optimizer changed that of ``earlier`` settings; and that the rate makes no
    sense for the optimizer, where that is so.
    """
    assigned = {assignment.partition("=")[0].strip() for assignment in assignments}
    spec, rate = optimizers.get(settings.optimizer), settings.learning_rate
    notes = [optimizers.rate_warning(settings)]
    if "optimizer" in assigned and "learning_rate" not in assigned:
        usual = f", the usual one of {spec.title}" if rate == spec.learning_rate else ""
        notes.insert(0, f"The learning rate is {rate:g}{usual}; --set learning_rate=… sets another.")
    factor = settings.lora_plus if earlier is None else earlier.get("lora_plus", SPECS["lora_plus"].default)
    if "lora_plus" not in assigned and settings.lora_plus != factor:
        notes.append(f"LoRA+ is {settings.lora_plus:g} instead of {factor:g}: {spec.title} has one rate for all.")
    return [note for note in notes if note]


def save_settings(settings: Settings, path: Path) -> None:
    """Writes all settings as flat TOML."""
    files.write(path, tomli_w.dumps(settings.flat()))


EARLIER = {"caption_tokens": 75, "prompt_weights": False, "zero_snr": "marked", "guidance_rescale": 0.0}
"""What earlier versions did, which did not have these settings: a run of theirs resumes as it began."""


def load_settings(path: Path) -> Settings:
    """The settings that ``save_settings`` wrote; what its version did not have yet is as in ``EARLIER``.

    Raises:
        SettingsError: the file is damaged, or from a version with other settings.
    """
    return check(EARLIER | table(path), where=path)
