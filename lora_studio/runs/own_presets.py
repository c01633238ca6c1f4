"""The user's own presets: TOML files as those that come with the studio, in a folder beside the runs, so that an update
leaves them alone. ``--preset`` knows them by name.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from lora_studio import files
from lora_studio.config import presets
from lora_studio.config.declaration import Level
from lora_studio.config.presets import Preset
from lora_studio.config.settings import Settings, layer
from lora_studio.config.specs import SPECS
from lora_studio.errors import SettingsError
from lora_studio.language import tr
from lora_studio.runs import trash, undo
from lora_studio.runs.layout import OUTPUTS

LEFT_OUT = frozenset(
    [key for key, spec in SPECS.items() if spec.level is Level.JOB]
    + ["trigger", "preview_prompts", "evaluation_prompts", "start_from", "init_word", "preserve_class"]
)
"""What a run is about, which no preset holds."""


def folder(outputs: Path = OUTPUTS) -> Path:
    """Where they are kept."""
    return outputs / ".presets"


def save(title: str, settings: Settings, outputs: Path = OUTPUTS) -> Preset:
    """Keeps ``settings``, without what a run is about, under ``title``. An own preset of that name goes to the trash.

    Raises:
        SettingsError: there is no title, it cannot be a name, or a preset that comes with the studio has it.
        MachineError: the system has no trash for this disk.
        OSError: the disk refuses.
    """
    title, path = _free(title, outputs)
    if path.exists():
        trash.put(path)
    _write(path, title, "", held(settings))
    return presets.read(path)


def rename(name: str, title: str, outputs: Path = OUTPUTS) -> Preset:
    """Gives the own preset ``name`` another title, and its file another name.

    Raises:
        SettingsError: there is no such preset, no title, it cannot be a name, or another preset has it.
        OSError: the disk refuses.
    """
    old, (title, path) = _own(name, outputs), _free(title, outputs)
    found = presets.read(old)
    if path.exists() and not path.samefile(old):
        raise SettingsError(
            tr("Another preset is called {title}.", title=title),
            where=tr("the preset's name"),
            do=tr("Choose another name."),
        )
    _write(path, title, found.blurb, presets.table(old).get("settings", {}))
    if path.name != old.name:
        files.unlink(old)
    return presets.read(path)


def delete(name: str, outputs: Path = OUTPUTS) -> None:
    """Moves the own preset ``name`` to the trash; ``restore`` brings the last one back.

    Raises:
        SettingsError: there is none.
        MachineError: it cannot be kept aside, or the system has no trash for this disk.
    """
    undo.delete([_own(name, outputs)], outputs, undo.PRESETS)


def restore(name: str, outputs: Path = OUTPUTS) -> Preset:
    """The own preset ``name``, which was deleted last, at its place again.

    Raises:
        SettingsError: another one has its name now, or it is not kept any more.
        MachineError: the disk refuses.
    """
    path = folder(outputs) / f"{name}.toml"
    if undo.kept(outputs, undo.PRESETS) != [path]:
        what = tr("The preset {name} is not kept for undo any more.", name=name)
        raise SettingsError(what, where=path, do=tr("Look for it in your system's trash."))
    undo.restore(outputs, undo.PRESETS)
    return presets.read(path)


def held(settings: Settings) -> dict[str, Any]:
    """What a preset of ``settings`` must name: what differs from the defaults, and what other choices in it would
    otherwise bring, such as an optimizer its usual rates.
    """
    values = {key: value for key, value in settings.flat().items() if key not in LEFT_OUT}
    named = {key: value for key, value in values.items() if value != SPECS[key].default}
    brought: Mapping[str, Any] = layer({}, named)
    return named | {key: values[key] for key, value in brought.items() if key in values and values[key] != value}


def _write(path: Path, title: str, blurb: str, settings: Mapping[str, Any]) -> None:
    files.write(path, tomli_w.dumps({"title": title, "blurb": blurb, "settings": dict(settings)}))


def _own(name: str, outputs: Path) -> Path:
    path = folder(outputs) / f"{name}.toml"
    if path.parent != folder(outputs) or not path.is_file():
        raise SettingsError(
            tr("There is no preset of yours named {name!r}.", name=name),
            where=folder(outputs),
            do=tr("Reload the page."),
        )
    return path


def _free(title: str, outputs: Path) -> tuple[str, Path]:
    """The title with single spaces, and where a preset of it is kept: spaces are hyphens in its file's name."""
    typed = " ".join(unicodedata.normalize("NFC", title).split())
    if not typed:
        raise SettingsError(tr("The preset has no name."), where=tr("the preset's name"), do=tr("Enter one."))
    possible, name = files.safe_name(typed, spaces=True), files.safe_name(typed)
    if typed != possible:
        raise SettingsError(
            tr("A preset cannot be called “{typed}”.", typed=typed),
            where=tr("the preset's name"),
            do=tr(
                "Use letters, digits, spaces, hyphens, underscores and points, 60 at most: “{possible}” would do.",
                possible=possible,
            ),
        )
    if (presets.FOLDER / f"{name}.toml").exists():
        raise SettingsError(
            tr("A preset that comes with the studio is called {name}.", name=name),
            where=tr("the preset's name"),
            do=tr("Choose another."),
        )
    return typed, folder(outputs) / f"{name}.toml"
