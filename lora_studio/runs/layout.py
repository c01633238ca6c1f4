"""Where everything of a run is stored. The only module that knows the layout of ``outputs/``.

outputs/
├── .cache/                 latents, text features, previews of base models, thumbnails; may be deleted at any time
├── .captioning/            captioning jobs, a folder each (``jobs.captioning``)
├── .deleted/               what was moved to the trash last, for undo
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

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_studio.config import presets
from lora_studio.config.settings import Settings
from lora_studio.runs import notes
from lora_studio.runs.work_folder import WorkFolder

OUTPUTS = Path(os.environ.get("LORA_STUDIO_OUTPUTS") or Path(__file__).resolve().parents[2] / "outputs")
"""The default folder of runs."""

OWN_FOLDERS = {"library", "pictures"}
"""Folders of ``outputs`` that are no runs."""
_SWEEPS = ".sweeps"


@dataclass(frozen=True)
class Run(WorkFolder):
    """One run's folder."""

    @property
    def settings_file(self) -> Path:
        return self.folder / "settings.toml"

    @property
    def ticket_file(self) -> Path:
        return self.folder / "ticket.json"

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
        found = notes.read(self.parent_file)
        try:
            return {"run": str(found["run"]), "step": int(found["step"]), "goes_on": bool(found["goes_on"])}
        except (ValueError, KeyError, TypeError, ArithmeticError):
            return {}

    def former(self) -> list[str]:
        """Its earlier names, the latest first (``renaming``)."""
        found = notes.read(self.former_file)
        return [str(one) for one in found] if isinstance(found, list) else []

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


def deleted_folder(outputs: Path = OUTPUTS) -> Path:
    """Where what was moved to the trash last is kept for undo."""
    return outputs / ".deleted"


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
