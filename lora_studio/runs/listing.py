"""Which runs and jobs there are. What cannot be read is named, and does not hide the rest."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from lora_studio import files
from lora_studio.config.specs import did_you_mean
from lora_studio.errors import RunError
from lora_studio.language import tr
from lora_studio.runs.layout import OUTPUTS, Run, captioning_folder, comparing_folder, sweeps_folder


class Unreadable(NamedTuple):
    """A file or folder of ``outputs`` that cannot be read, why, and what to do."""

    path: str
    what: str
    do: str

    @classmethod
    def of(cls, path: Path | str, error: OSError) -> Unreadable:
        what = tr("{name} cannot be read: {reason}.", name=files.printable(Path(path).name), reason=files.reason(error))
        return cls(files.printable(path), what, tr("Check that the disk is connected and that you may read it."))

    @classmethod
    def misnamed(cls, path: Path) -> Unreadable:
        """Of a name that is not valid Unicode."""
        name = files.printable(path.name)
        return cls(files.printable(path), tr("{name} is not a valid Unicode name.", name=name), tr("Rename it."))


class Listing(NamedTuple):
    """All runs, the latest first, and what cannot be read: folders that may be runs, or ``outputs`` itself."""

    runs: list[Run]
    unreadable: list[Unreadable]


def listing(outputs: Path = OUTPUTS) -> Listing:
    """Every run of ``outputs``. What cannot be read, such as a disk's ``lost+found``, does not hide the rest."""
    stamped: list[tuple[int, Run]] = []
    unreadable: list[Unreadable] = []
    for entry in entries(outputs, unreadable):
        if entry.name.startswith("."):
            continue
        run = Run(Path(entry.path))
        if not files.is_text(entry.name):
            unreadable.append(Unreadable.misnamed(run.folder))
            continue
        try:
            status = os.stat(run.settings_file)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            unreadable.append(Unreadable.of(run.folder, error))
            continue
        if stat.S_ISREG(status.st_mode):
            stamped.append((status.st_mtime_ns, run))
    stamped.sort(key=lambda one: one[0], reverse=True)
    return Listing([run for _, run in stamped], unreadable)


def entries(folder: Path, unreadable: list[Unreadable]) -> list[os.DirEntry[str]]:
    """What is in ``folder``; nothing if there is no such folder. That it cannot be read is added to ``unreadable``."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except FileNotFoundError:
        return []
    except OSError as error:
        unreadable.append(Unreadable.of(folder, error))
        return []


def existing(outputs: Path = OUTPUTS) -> list[Run]:
    """Every run that can be read, the latest first."""
    return listing(outputs).runs


def find(name: str, outputs: Path = OUTPUTS) -> Run:
    """The run called ``name``, or at the path ``name``; else the one that was called so before it was renamed.

    Raises:
        RunError: there is none (the most similar name is suggested), or its folder cannot be read.
    """
    for folder in (outputs / name, Path(name)):
        try:
            if stat.S_ISREG(os.stat(folder / "settings.toml").st_mode):
                if not files.is_text(folder):
                    what, do = Unreadable.misnamed(folder)[1:]
                    raise RunError(what, where=files.printable(folder), do=do)
                return Run(folder.resolve())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            continue
        except OSError as error:
            problem = Unreadable.of(folder, error)
            raise RunError(problem.what, where=folder, do=problem.do) from error
    for run in existing(outputs):
        if name in run.former():
            return run
    known = [run.name for run in existing(outputs)]
    raise RunError(
        tr("There is no run named {name!r}.", name=name),
        where=outputs,
        do=did_you_mean(name, known, listed=5)
        if known
        else tr("Train a style first, or name the folder of the runs with --outputs."),
    )


def job_folders(outputs: Path = OUTPUTS) -> list[Path]:
    """Where the jobs of all kinds may be: captioning jobs, studies, comparisons, and the judging of each run."""
    places = (captioning_folder(outputs), sweeps_folder(outputs), comparing_folder(outputs))
    own = [Path(entry.path) for place in places for entry in entries(place, [])]
    return own + [run.judging for run in existing(outputs)]
