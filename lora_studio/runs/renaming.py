"""Gives a run another name. Its folder, its settings and its adapters' files take it; the earlier names are noted, so
that links, recipes and other runs that still say them find it.
"""

from __future__ import annotations

import os
from pathlib import Path

from lora_studio import files, runs
from lora_studio.config import presets
from lora_studio.config.slices.run import PATH_SIGNS
from lora_studio.errors import RunError, SettingsError
from lora_studio.language import tr
from lora_studio.runs import Run, notes
from lora_studio.runs.model_card import called, card_file, pictures_folder

_SUFFIX = ".safetensors"


def require_free(run: Run, name: str) -> str:
    """The name that ``run`` gets where ``name`` was typed: it is made a folder's name, as a new run's is.

    Raises:
        SettingsError: nothing was typed, or a path.
        RunError: another run, or something else, has the name.
    """
    if not name.strip():
        raise SettingsError(tr("The new name is empty."), where=run.name, do=tr("Type a name."))
    if PATH_SIGNS & set(name):
        raise SettingsError(tr("A name must not contain / or \\."), where=run.name, do=tr("Type one without it."))
    wanted = files.safe_name(name)
    folder = run.folder.with_name(wanted)
    taken = os.path.lexists(folder) and not folder.samefile(run.folder)  # where case is ignored, it is the same
    if wanted.casefold() in runs.OWN_FOLDERS or taken:
        raise RunError(tr("The name {wanted} is taken.", wanted=wanted), where=folder, do=tr("Choose another name."))
    return wanted


def rename(run: Run, name: str) -> Run:
    """The run under its new ``name``. Nothing may be at work in it.

    Raises:
        SettingsError: no name was typed, or a path, or the run's settings are damaged.
        RunError: the name is taken.
        MachineError: the disk refuses; the run keeps its name.
    """
    wanted = require_free(run, name)
    if wanted == run.name:
        return run
    changed, new = run.settings().changed(name=wanted), Run(run.folder.with_name(wanted))
    saved, children = run.settings_file.stat(), _children(run)
    try:
        names = [run.name, *(one for one in run.former() if one not in (run.name, wanted))]
        notes.write(run.former_file, names)
        files.patiently(lambda: os.rename(run.folder, new.folder))
    except OSError as error:
        raise files.refusal(error, tr("{name} cannot be renamed", name=run.name), run.folder) from error
    try:
        for path, other in _own_files(new.folder, run.name, wanted):
            _move(path, other)
            _move_card(path, other)
        presets.save_settings(changed, new.settings_file)
        os.utime(new.settings_file, ns=(saved.st_atime_ns, saved.st_mtime_ns))  # it tells the age of the run
        for child in children:
            notes.write(child.parent_file, {**child.parent(), "run": wanted})
        files.sync_folder(new.folder.parent)
    except OSError as error:
        raise files.refusal(
            error, tr("{name} is {wanted} now, but not all of its files are", name=run.name, wanted=wanted), new.folder
        ) from error
    return new


def _children(run: Run) -> list[Run]:
    """The runs that branched from ``run``."""
    return [other for other in runs.existing(run.folder.parent) if other.parent().get("run") == run.name]


def _own_files(folder: Path, old: str, new: str) -> list[tuple[Path, Path]]:
    """The adapters that are named after their run, each with its new path. Those whose path is taken are left out."""
    named = [(path, _renamed(path, old, new)) for path in sorted(folder.glob(f"*{_SUFFIX}"))]
    return [(path, other) for path, other in named if other and not other.exists()]


def _move(path: Path, other: Path) -> None:
    files.patiently(lambda: os.rename(path, other))


def _move_card(path: Path, other: Path) -> None:
    """The model card of an adapter goes with it, with what the card says of the file's name."""
    for part in (card_file, pictures_folder):
        if part(path).exists() and not part(other).exists():
            _move(part(path), part(other))
            if part is card_file:
                files.write(part(other), called(part(other).read_text("utf-8"), path, other))


def _renamed(path: Path, old: str, new: str) -> Path | None:
    """The path of an adapter whose name begins with the run's own; None for another."""
    rest = path.name.removeprefix(old)
    own = path.name.startswith(old) and rest.startswith((_SUFFIX, "-"))
    return path.with_name(f"{new}{rest}") if own else None


def recorded(run: Run, name: str) -> Path:
    """Where a file of ``run`` is that an event names ``name``. Events stay as they were written; a file that was named
    after the run has its present name, also after several renames.
    """
    path = run.folder / name
    if os.path.lexists(path):
        return path
    now = (_renamed(path, old, run.name) for old in run.former())
    return next((one for one in now if one), path)


def follow(name: str, outputs: Path) -> str:
    """What the run that was called ``name`` is called now; ``name`` itself if no run was."""
    if not name or os.path.lexists(outputs / name):
        return name
    return next((run.name for run in runs.existing(outputs) if name in run.former()), name)


def follow_path(path: Path, outputs: Path) -> Path:
    """Where a file of ``outputs`` is, also after its run was renamed; ``path`` itself if it is not known."""
    if os.path.lexists(path) or not path.is_relative_to(outputs):
        return path
    old, *inner = path.relative_to(outputs).parts
    new = follow(old, outputs)
    if new == old or not inner:
        return path
    own = _renamed(Path(inner[0]), old, new) if len(inner) == 1 else None
    return outputs / new / (own or Path(*inner))
