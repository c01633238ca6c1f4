"""Where everything of a run is stored. The only module that knows the layout of ``outputs/``.

outputs/
├── .cache/                 latents, text features, previews of base models, thumbnails; may be deleted at any time
├── .captioning/            captioning jobs, a folder each (``jobs.captioning``)
├── .device.lock            held by the worker of a run or a job; others wait
├── .drawing.lock           held by whoever draws, or wants to, while a run trains
├── .programs.json          folders of other programs that adapters are sent to
├── .recent.json            folders of pictures that were opened last
├── .queue.lock, .queue.log held by the process that starts the runs that wait; its output
├── .studio.json            held by the studio, with its address
├── .sweeps/                studies, a folder each with the runs of their trials (``sweeps.study``)
├── library/                adapters that were imported
├── pictures/               uploaded datasets, a folder each, and images that commands drew
└── <run>/
    ├── settings.toml       all settings
    ├── events.jsonl        what happened, one event a line
    ├── manifest.json       its pictures and captions
    ├── former.json         its earlier names, if it was renamed (``runs.renaming``)
    ├── parent.json         the run and step that it branched from, if it did
    ├── parent/             the adapter that it started from, if it did
    ├── ticket.json         its place in the queue, while it waits
    ├── worker.json         process id and start time of its worker
    ├── start.lock          held while a worker is started
    ├── turns.lock          held while it trains, in turns with whoever draws
    ├── worker.log          output of the worker's libraries
    ├── control/            requests to the worker, one file each
    ├── previews/           step-N-i.png and base-i.png
    ├── checkpoints/step-N/ saved states that the run can resume from
    ├── evaluation/step-N/  judged states: what was measured, pictures, the adapter
    ├── evaluation/job/     the job that judges them (``jobs.judging``)
    ├── <name>-step-N.safetensors  a state that was kept
    └── <name>.safetensors  the adapter
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lora_studio import files
from lora_studio.config import presets
from lora_studio.config.settings import Settings
from lora_studio.config.slices import RunSettings
from lora_studio.config.specs import did_you_mean
from lora_studio.errors import RunError

OUTPUTS = Path(os.environ.get("LORA_STUDIO_OUTPUTS") or Path(__file__).resolve().parents[2] / "outputs")
"""The default folder of runs."""

OWN_FOLDERS = {"library", "pictures"}
"""Folders of ``outputs`` that are no runs."""
_SWEEPS = ".sweeps"


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def settings_file(self) -> Path:
        return self.folder / "settings.toml"

    @property
    def events_file(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def worker_file(self) -> Path:
        return self.folder / "worker.json"

    @property
    def ticket_file(self) -> Path:
        return self.folder / "ticket.json"

    @property
    def start_lock(self) -> Path:
        return self.folder / "start.lock"

    @property
    def turns_lock(self) -> Path:
        return self.folder / "turns.lock"

    @property
    def parent_file(self) -> Path:
        return self.folder / "parent.json"

    @property
    def former_file(self) -> Path:
        return self.folder / "former.json"

    @property
    def rate_file(self) -> Path:
        """What was found where the run looked for its learning rate."""
        return self.folder / "rate.json"

    @property
    def start_file(self) -> Path:
        return self.folder / "parent" / "adapter.safetensors"

    @property
    def manifest_file(self) -> Path:
        return self.folder / "manifest.json"

    @property
    def log_file(self) -> Path:
        return self.folder / "worker.log"

    @property
    def control(self) -> Path:
        return self.folder / "control"

    @property
    def previews(self) -> Path:
        return self.folder / "previews"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def judging(self) -> Path:
        return self.evaluation / "job"

    @property
    def adapter_file(self) -> Path:
        return self.folder / f"{self.name}.safetensors"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation"

    @property
    def cache(self) -> Path:
        """That of the outputs, also for the run of a trial, which lies deeper."""
        parent = self.folder.parent
        return cache_folder(parent.parent.parent if parent.parent.name == _SWEEPS else parent)

    def preview_file(self, step: int, index: int, base: bool = False) -> Path:
        return self.previews / (f"base-{index}.png" if base else f"step-{step}-{index}.png")

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step}"

    def judged_adapter(self, step: int) -> Path:
        return self.evaluation / f"step-{step}" / "adapter.safetensors"

    def kept_file(self, step: int) -> Path:
        return self.folder / f"{self.name}-step-{step}.safetensors"

    def relative(self, path: Path) -> str:
        """``path`` as events name it: relative to the run's folder, with forward slashes."""
        return path.relative_to(self.folder).as_posix()

    def parent(self) -> dict[str, Any]:
        """The ``run`` and ``step`` that it branched from, and whether it ``goes_on`` with that state or started from
        its adapter; empty if it is no branch.
        """
        try:
            found = json.loads(self.parent_file.read_text("utf-8"))
            return {"run": str(found["run"]), "step": int(found["step"]), "goes_on": bool(found["goes_on"])}
        except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
            return {}

    def former(self) -> list[str]:
        """Its earlier names, the latest first (``renaming``)."""
        try:
            found = json.loads(self.former_file.read_text("utf-8"))
            return [str(one) for one in found] if isinstance(found, list) else []
        except (OSError, ValueError, RecursionError):
            return []

    @property
    def modified(self) -> float:
        """When its settings were saved, in seconds since the epoch; 0 if that cannot be read."""
        try:
            return self.settings_file.stat().st_mtime
        except OSError:
            return 0.0

    def settings(self) -> Settings:
        """The run's settings.

        Raises:
            SettingsError: the file is damaged or cannot be read.
        """
        return presets.load_settings(self.settings_file)


def cache_folder(outputs: Path = OUTPUTS) -> Path:
    """Where latents, text features, previews of base models and thumbnails are cached."""
    return outputs / ".cache"


def captioning_folder(outputs: Path = OUTPUTS) -> Path:
    """Where captioning jobs are kept, a folder each."""
    return outputs / ".captioning"


def job_folders(outputs: Path = OUTPUTS) -> list[Path]:
    """Where the jobs of all kinds may be: captioning jobs, studies, comparisons, and the judging of each run."""
    places = (captioning_folder(outputs), sweeps_folder(outputs), comparing_folder(outputs))
    own = [Path(entry.path) for place in places for entry in entries(place, [])]
    return own + [run.judging for run in existing(outputs)]


def new_captioning(name: str, outputs: Path = OUTPUTS) -> Path:
    """A new folder for a captioning job. An existing one is never touched: the name gets a number.

    Raises:
        OSError: the folder cannot be made.
    """
    files.make_folder(captioning_folder(outputs))
    return _claim(captioning_folder(outputs), files.safe_name(name))


def comparing_folder(outputs: Path = OUTPUTS) -> Path:
    """Where comparisons that are at work or wait are noted, a folder each."""
    return cache_folder(outputs) / "comparing"


def sweeps_folder(outputs: Path = OUTPUTS) -> Path:
    """Where studies are kept, a folder each with the runs of its trials."""
    return outputs / _SWEEPS


def trials_folder(outputs: Path = OUTPUTS) -> Path:
    """Where trial runs of a few steps are created and deleted."""
    return cache_folder(outputs) / "trials"


def queue_lock(outputs: Path = OUTPUTS) -> Path:
    """The lock that the process holds which starts the runs that wait, with a note of that process."""
    return outputs / ".queue.lock"


def queue_log(outputs: Path = OUTPUTS) -> Path:
    """The output of that process."""
    return outputs / ".queue.log"


def device_lock(outputs: Path = OUTPUTS) -> Path:
    """The lock that the worker of a run or a job holds."""
    return outputs / ".device.lock"


def drawing_lock(outputs: Path = OUTPUTS) -> Path:
    """The lock that whoever draws while a run trains holds."""
    return outputs / ".drawing.lock"


def recent_file(outputs: Path = OUTPUTS) -> Path:
    """The folders of pictures that were opened last."""
    return outputs / ".recent.json"


def programs_file(outputs: Path = OUTPUTS) -> Path:
    """The folders of other programs that adapters are sent to."""
    return outputs / ".programs.json"


def studio_file(outputs: Path = OUTPUTS) -> Path:
    """The lock that the studio of this folder holds; it contains the studio's address."""
    return outputs / ".studio.json"


def library_folder(outputs: Path = OUTPUTS) -> Path:
    """Where imported adapters are kept."""
    return outputs / "library"


def pictures_folder(outputs: Path = OUTPUTS) -> Path:
    """Where uploaded datasets are kept, a folder each, and images that commands draw."""
    return outputs / "pictures"


def new_pictures(name: str, outputs: Path = OUTPUTS) -> Path:
    """A new folder for an uploaded dataset. An existing one is never touched: the name gets a number.

    Raises:
        OSError: the folder cannot be made.
    """
    files.make_folder(pictures_folder(outputs))
    return _claim(pictures_folder(outputs), files.safe_name(name))


def wanted_name(settings: RunSettings) -> str:
    """The name of a run with these settings, before it gets a number if the name is taken."""
    data = Path(settings.data)
    name = files.safe_name(settings.name or (data.stem if settings.has_pairs else data.name) or "style")
    return f"run-{name}" if name.casefold() in OWN_FOLDERS else name


def create(settings: Settings, outputs: Path = OUTPUTS) -> Run:
    """Creates a run's folder with its settings. An existing run is never touched: the name gets a number.

    Raises:
        RunError: the name of the outputs folder is not valid Unicode.
        MachineError: the outputs folder cannot be written.
    """
    require_text(outputs)
    wanted = wanted_name(settings.run)
    try:
        files.make_folder(outputs)
        folder = _claim(outputs, wanted)
        run = Run(folder)
        for sub in (run.control, run.previews, run.checkpoints):
            sub.mkdir()
        presets.save_settings(settings.changed(name=run.name), run.settings_file)
        files.sync_folder(outputs)
    except OSError as error:
        raise files.refusal(error, "The run's folder cannot be created", outputs) from error
    return run


def require_text(outputs: Path) -> None:
    """Raises RunError where the name of the outputs folder is not valid Unicode: settings and logs name files in it."""
    if not files.is_text(outputs.absolute()):
        raise RunError(
            "The path of the outputs folder is not valid Unicode.",
            where=files.printable(outputs.absolute()),
            do="Rename that folder, or choose another one with --outputs.",
        )


def _claim(parent: Path, wanted: str) -> Path:
    """Makes a new folder in ``parent``: ``wanted``, or with a number if there is one."""
    number = 1
    while True:
        folder = parent / (wanted if number == 1 else f"{wanted}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


class Unreadable(NamedTuple):
    """A file or folder of ``outputs`` that cannot be read, why, and what to do."""

    path: str
    what: str
    do: str

    @classmethod
    def of(cls, path: Path | str, error: OSError) -> Unreadable:
        what = f"{files.printable(Path(path).name)} cannot be read: {files.reason(error)}."
        return cls(files.printable(path), what, "Check that the disk is connected and that you may read it.")

    @classmethod
    def misnamed(cls, path: Path) -> Unreadable:
        """Of a name that is not valid Unicode."""
        name = files.printable(path.name)
        return cls(files.printable(path), f"{name} is not a valid Unicode name.", "Rename it.")


class Listing(NamedTuple):
    """All runs, the latest first, and what cannot be read: folders that may be runs, or ``outputs`` itself."""

    runs: list[Run]
    unreadable: list[Unreadable]


def listing(outputs: Path = OUTPUTS) -> Listing:
    """Every run of ``outputs``. What cannot be read, such as a disk's ``lost+found``, takes nothing else along."""
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
        f"There is no run named {name!r}.",
        where=outputs,
        do=did_you_mean(name, known, listed=5)
        if known
        else "Train a style first, or name the folder of the runs with --outputs.",
    )
