"""Studies on disk: a sweep over the pictures of one folder, and the runs of its trials.

outputs/.sweeps/<study>/
├── study.json      the sweep, the settings that all trials have in common, where its trials are kept
├── study.db        Optuna's storage, unless another was named
├── trials.json     what is known of the trials, for those who do not load Optuna
├── order.json, …   what any job has (``jobs.job``)
└── <study>-N/      the run of trial N; with several training seeds also <study>-N-seed-2, …
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from lora_studio import files, runs
from lora_studio.config.settings import Settings, check
from lora_studio.config.specs import SPECS, did_you_mean
from lora_studio.errors import RunError, SettingsError, StudioError
from lora_studio.language import tr
from lora_studio.runs import Run
from lora_studio.sweeps.outcome import Trial
from lora_studio.sweeps.space import Sweep

_LONGEST = 44
"""Characters of a study's name, to which its runs add their numbers."""
_trials: TypeAdapter[list[Trial]] = TypeAdapter(list[Trial])


class StudyPlan(BaseModel):
    """What a study was begun with. It does not change."""

    model_config = ConfigDict(frozen=True)

    sweep: Sweep
    settings: dict[str, Any]
    """What all trials have in common, all of it."""
    storage: str = ""
    """A URL or a file of Optuna's; by default a file of the study's own."""

    def same(self, other: StudyPlan) -> bool:
        """Whether both ask for the same trials."""
        words = {"title", "blurb", "name"}
        return (self.sweep.model_dump(exclude=words), self.settings, self.storage) == (
            other.sweep.model_dump(exclude=words),
            other.settings,
            other.storage,
        )


@dataclass(frozen=True)
class Study:
    """One study's folder."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def outputs(self) -> Path:
        return self.folder.parent.parent

    @property
    def plan_file(self) -> Path:
        return self.folder / "study.json"

    @property
    def trials_file(self) -> Path:
        return self.folder / "trials.json"

    @property
    def database(self) -> Path:
        return self.folder / "study.db"

    @cached_property
    def plan(self) -> StudyPlan:
        """What it was begun with.

        Raises:
            RunError: the file is damaged, or of another version.
        """
        try:
            return StudyPlan.model_validate_json(self.plan_file.read_bytes())
        except (OSError, ValidationError) as error:
            do = tr("Start the sweep anew under another name; the runs of its trials are intact.")
            raise RunError(
                tr("The study's {name} cannot be read.", name=self.plan_file.name), where=self.plan_file, do=do
            ) from error

    @property
    def sweep(self) -> Sweep:
        return self.plan.sweep

    def settings(self) -> Settings:
        """What all trials have in common. Raises SettingsError where this version has no such settings."""
        return check({key: value for key, value in self.plan.settings.items() if key in SPECS}, where=self.plan_file)

    def run(self, number: int, seed: int = 0) -> Run:
        """The run of a trial with one of its training seeds, counted from 0. It need not exist yet."""
        return Run(self.folder / f"{self.name}-{number}{f'-seed-{seed + 1}' if seed else ''}")

    def noted(self) -> list[Trial]:
        """The trials as they were when one last began or ended. Reads a small file, and loads no Optuna."""
        try:
            return _trials.validate_json(files.patiently(self.trials_file.read_bytes))
        except (OSError, ValidationError):
            return []

    def note(self, trials: Sequence[Trial]) -> None:
        """Keeps ``trials`` for ``noted``. A disk that refuses that is passed over: the storage has them."""
        try:
            files.write(self.trials_file, json.dumps([trial.told(samples=True) for trial in trials]))
        except (OSError, StudioError):
            return


def begin(sweep: Sweep, settings: Settings, outputs: Path, name: str = "", storage: str = "") -> Study:
    """The study of ``sweep`` with these ``settings`` for all trials, by default named after both. Raises as ``create``.

    Args:
        storage: as of ``StudyPlan``.

    Raises:
        SettingsError: the trials would train on prompt pairs, and could not be judged.
    """
    if settings.run.has_pairs:
        what = tr("The trials of a sweep are judged by the pictures that they train on, and prompt pairs have none.")
        raise SettingsError(what, where="data", do=tr("Choose a folder of pictures."))
    plan = StudyPlan(sweep=sweep, settings=settings.flat(), storage=storage)
    return create(plan, name or f"{sweep.name}-{Path(settings.run.data).name}", outputs)


def create(plan: StudyPlan, name: str, outputs: Path) -> Study:
    """The study called ``name``: a new one, or the one that was begun with the same plan.

    Raises:
        RunError: there is one of that name that was begun with another plan.
        MachineError: the disk refuses.
    """
    runs.require_text(outputs)
    study = Study(runs.sweeps_folder(outputs.resolve()) / files.safe_name(name)[:_LONGEST].rstrip(" .-"))
    if study.plan_file.is_file():
        if not study.plan.same(plan):
            what = tr("There is a study {name} already, begun with other settings or axes.", name=study.name)
            raise RunError(
                what, where=study.folder, do=tr("Choose another name with --name, or continue it by its name.")
            )
        return study
    try:
        files.make_folder(study.folder)
        files.write(study.plan_file, plan.model_dump_json(indent=1))
    except OSError as error:
        raise files.refusal(error, tr("The study cannot be created"), study.folder) from error
    return study


def listed(outputs: Path) -> list[Study]:
    """All studies, the latest first. Folders that cannot be read are passed over."""
    stamped: list[tuple[int, Study]] = []
    for entry in runs.entries(runs.sweeps_folder(outputs), []):
        study = Study(Path(entry.path))
        try:
            stamped.append((study.plan_file.stat().st_mtime_ns, study))
        except OSError:
            continue
    return [study for _, study in sorted(stamped, key=lambda one: (-one[0], one[1].name))]


def find(name: str, outputs: Path) -> Study:
    """The study called ``name``.

    Raises:
        RunError: there is none.
    """
    study = Study(runs.sweeps_folder(outputs.resolve()) / name)
    if not name or Path(name).name != name or not study.plan_file.is_file():
        known = [one.name for one in listed(outputs)]
        do = (
            did_you_mean(name, known)
            if known
            else tr("Begin one with python3 app.py sweep learning-rate --data FOLDER")
        )
        raise RunError(tr("There is no study named {name!r}.", name=name), where=outputs, do=do)
    return study


def keep(study: Study, number: int) -> Run:
    """Copies the run of trial ``number`` into the outputs, where it is a run like any other. One that was copied before
    is returned as it is.

    Raises:
        RunError: the trial has no run with an adapter here.
        MachineError: the disk refuses.
    """
    made, kept = study.run(number), Run(study.outputs / study.run(number).name)
    if kept.settings_file.is_file():
        return kept
    if not made.adapter_file.is_file():
        there = next((trial.machine for trial in study.noted() if trial.number == number), "")
        do = (
            tr("It was made on {there}: keep it there.", there=there)
            if there
            else tr("Choose a trial that has finished.")
        )
        raise RunError(
            tr("Trial {number} of {name} has no adapter here.", number=number, name=study.name),
            where=made.folder,
            do=do,
        )
    partial = files.partial(kept.folder)
    try:
        shutil.copytree(made.folder, partial)
        partial.rename(kept.folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise files.refusal(error, tr("The run cannot be kept"), kept.folder) from error
    return kept
