"""Presets: partial settings in TOML, layered over the defaults.

A preset's file holds ``title`` and ``blurb`` and, under ``[settings]``, the keys that it changes.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel

from lora_studio import files
from lora_studio.config.settings import Settings, check, did_you_mean, from_text
from lora_studio.errors import SettingsError

FOLDER = Path(__file__).resolve().parents[2] / "presets"


class Preset(BaseModel):
    """A named, described set of changes to the defaults."""

    name: str
    title: str
    blurb: str
    settings: dict[str, Any] = {}


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise SettingsError(
            f"{path.name} cannot be read: {error.strerror or error}.",
            where=path,
            do="Check that it is there and that you may read it.",
        ) from None
    except (ValueError, RecursionError) as error:  # of numbers too long, and of brackets without end
        raise SettingsError(
            f"{path.name} is not valid TOML: {error}.", where=path, do="Mend that line, or delete the file."
        ) from None


def read(path: Path) -> Preset:
    """The preset in one file.

    Raises:
        SettingsError: the file is not TOML, lacks a title, or holds a key or value that no setting takes.
    """
    table = _table(path)
    if unknown := set(table) - {"title", "blurb", "settings"}:
        word = sorted(unknown)[0]
        raise SettingsError(
            f"{path.name} has the unknown entry {word!r}.",
            where=path,
            do="Settings belong under [settings]; beside it stand title and blurb.",
        )
    settings = table.get("settings", {})
    if not isinstance(settings, dict):
        raise SettingsError(
            f"{path.name}: settings must be a table.", where=path, do="Write [settings] on a line of its own."
        )
    check(settings, where=path.name)
    return Preset(
        name=path.stem, title=str(table.get("title", path.stem)), blurb=str(table.get("blurb", "")), settings=settings
    )


def available(folder: Path = FOLDER) -> list[Preset]:
    """Every preset of ``folder``, by its file's name."""
    return [read(path) for path in sorted(folder.glob("*.toml"))]


def find(name: str, folder: Path = FOLDER) -> Preset:
    """The preset called ``name``, or the one in the TOML file that ``name`` is a path of.

    Raises:
        SettingsError: there is none; the nearest name is offered.
    """
    for path in (folder / f"{name}.toml", Path(name)):
        if path.suffix == ".toml" and path.is_file():
            return read(path)
    raise SettingsError(
        f"There is no preset named {name!r}.",
        where="--preset",
        do=did_you_mean(name, [path.stem for path in sorted(folder.glob("*.toml"))]),
    )


def layered(preset: str | None, assignments: list[str], under: Settings | None = None, **values: Any) -> Settings:
    """Settings from the defaults, or from those ``under`` all, then the preset, then ``values``, then ``key=value``
    assignments.

    Raises:
        SettingsError: a preset, key or value is wrong.
    """
    merged = (under.flat() if under else {}) | (find(preset).settings if preset else {})
    merged.update({key: value for key, value in values.items() if value is not None})
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise SettingsError(
                f"{assignment!r} is not of the form key=value.", where="--set", do="Write for example --set rank=8."
            )
        merged[key.strip()] = from_text(key.strip(), text.strip())
    return check(merged)


def save_settings(settings: Settings, path: Path) -> None:
    """Writes all settings as flat TOML."""
    files.write(path, tomli_w.dumps(settings.flat()))


def load_settings(path: Path) -> Settings:
    """The settings that ``save_settings`` wrote.

    Raises:
        SettingsError: the file is damaged or from a version with other settings.
    """
    return check(_table(path), where=path)
