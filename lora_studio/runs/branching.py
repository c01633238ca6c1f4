"""Going on from a saved state: what has changed since it was saved, and new runs that begin where another one was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from lora_studio import files, runs
from lora_studio.config.presets import save_settings
from lora_studio.config.settings import SPECS, Group, Settings, check
from lora_studio.dataset import folder, manifest
from lora_studio.errors import DatasetError, RunError, SettingsError
from lora_studio.methods.registry import METHODS
from lora_studio.runs import Run, checkpoints

_SHAPING = ("base", "method", "rank", "alpha", "rslora", "targets", "optimizer", "lora_plus", "train_text")
"""Settings that a saved state is bound to: under others its numbers mean something else, or have no place."""
_UNASKED = {"name", "device", "gpus"}
"""Settings that may change between two sessions of a run without changing what it learns; so may all that concern
previews and saving.
"""


class Origin(NamedTuple):
    """A saved state of a run."""

    run: Run
    step: int


def origin(text: str, outputs: Path) -> Origin:
    """The state that ``RUN`` (its newest) or ``RUN@STEP`` names.

    Raises:
        RunError: there is no such run, or it has not saved that state.
    """
    name, _, step = text.rpartition("@") if text.rpartition("@")[2].isdigit() else (text, "", "")
    run = runs.find(name, outputs)
    if step:
        return Origin(run, checkpoints.find(run, int(step)).step)
    newest = checkpoints.latest(run)
    if newest is None:
        raise RunError(
            f"The run {run.name} has saved no state to go on from.",
            where=run.checkpoints,
            do="Let it train longer, or save one from its page.",
        )
    return Origin(run, int(newest.name.removeprefix("step-")))


def hindrances(before: Settings, after: Settings) -> list[str]:
    """The settings because of which a state saved under ``before`` cannot be gone on with under ``after``; its adapter
    can still be begun from.
    """
    found = [key for key in _SHAPING if before[key] != after[key]]
    return found + ["ema"] * (bool(before.optimizer.ema) != bool(after.optimizer.ema))


def branch(parent: Run, step: int, settings: Settings, outputs: Path) -> Run:
    """A new run that begins at a saved state of ``parent``, which stays as it is.

    Where the settings allow it goes on at ``step`` with all of the state; otherwise it begins at step 0 with the
    adapter as it was.

    Raises:
        RunError: there is no such state.
        SettingsError: there are no steps left to train, or the adapter cannot be begun from.
        MachineError: the disk refuses it; nothing is left behind.
    """
    saved = checkpoints.find(parent, step)
    goes_on = not hindrances(_settings_of(saved, parent), settings)
    if goes_on and settings.run.steps <= step:
        raise SettingsError(
            f"The state of step {step} has no step of {settings.run.steps} left to train.",
            where="steps",
            do=f"Set steps above {step}.",
        )
    if not goes_on and (reason := METHODS[settings.adapter.method].own_start):
        able = [name for name, method in METHODS.items() if not method.own_start]
        raise SettingsError(reason, where="method", do=f"Set method to one of: {', '.join(able)}.")
    run = runs.create(
        settings.changed(name=settings.run.name if settings.run.name != parent.name else f"{parent.name}-from-{step}"),
        outputs,
    )
    try:
        if goes_on:
            checkpoints.copy(saved, run)
        else:
            files.write(run.start_file, (saved.folder / "adapter.safetensors").read_bytes())
        files.write(run.parent_file, json.dumps({"run": parent.name, "step": step, "goes_on": goes_on}))
    except OSError as error:
        shutil.rmtree(run.folder, ignore_errors=True)
        raise files.refusal(error, "The new run cannot be made", run.folder) from error
    return run


def with_changes(run: Run, changes: dict[str, object]) -> Run:
    """The run with ``changes`` to its settings: itself, or a branch for the steps that are left where its newest state
    does not go with them.

    Raises:
        SettingsError, RunError, MachineError: see ``branch``.
    """
    before, newest = run.settings(), checkpoints.latest(run)
    after = before.changed(**changes)
    if newest is not None and hindrances(before, after):
        step = int(newest.name.removeprefix("step-"))
        return branch(run, step, after.changed(steps=max(1, before.run.steps - step)), run.folder.parent)
    save_settings(after, run.settings_file)
    return run


def changes(run: Run) -> list[str]:
    """What differs from when the newest state was saved, a sentence each: settings that matter, pictures, captions.
    Empty for a run without a state.

    Raises:
        DatasetError: the folder cannot be trained on any more.
        SettingsError: the run's settings are damaged.
    """
    newest = checkpoints.latest(run)
    about = checkpoints.about(newest) if newest else {}
    settings = run.settings()
    found = [
        f"{SPECS[key].label} was {old}, and is {new}."
        for key, (old, new) in _differences(about.get("settings", {}), settings).items()
    ]
    if "pictures" in about:
        dataset = folder.scan(Path(settings.run.data), run.cache)
        if dataset.blocking:
            raise DatasetError(
                dataset.blocking[0].what, where=dataset.blocking[0].file or settings.run.data, do=dataset.blocking[0].do
            )
        found += manifest.changes(about["pictures"], manifest.manifest(dataset))
    return found


def _differences(before: dict, now: Settings) -> dict[str, tuple]:
    after = now.flat()
    minded = [
        key for key, spec in SPECS.items() if spec.group not in (Group.PREVIEWS, Group.SAVING) and key not in _UNASKED
    ]
    return {key: (before[key], after[key]) for key in minded if key in before and before[key] != after[key]}


def _settings_of(saved: checkpoints.Saved, run: Run) -> Settings:
    """The settings that the state was saved under."""
    known = checkpoints.about(saved.folder).get("settings")
    return check({key: value for key, value in known.items() if key in SPECS}) if known else run.settings()
