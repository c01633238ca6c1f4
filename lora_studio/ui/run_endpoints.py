"""What scripts can ask of runs and adapters by name while the studio runs: ``/train``, ``/status``, ``/stop`` and
``/export``; see docs/scripting.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_studio import files, runs
from lora_studio.adapters.kinds import KINDS, PLAIN_READERS, readers_of, usual_form
from lora_studio.config import presets
from lora_studio.config.settings import check, layer
from lora_studio.config.specs import did_you_mean
from lora_studio.errors import RunError, SettingsError
from lora_studio.jobs import queue, runner, stopping, warm
from lora_studio.jobs.view import RunView
from lora_studio.runs import Run, branching, checkpoints, library
from lora_studio.training import creating
from lora_studio.ui import downloads
from lora_studio.ui.exporting import exported, usual_name
from lora_studio.ui.outcome import PROGRAMS
from lora_studio.ui.pages.draw import named
from lora_studio.ui.pages.runs import state_words
from lora_studio.ui.pages.train import beginning
from lora_studio.ui.pages.train.live import RunWatcher

EXPORT_SETTINGS = ("privacy", "programs", "dtype", "form", "base", "rank")
"""What ``settings`` of ``/export`` may name: options of the command ``convert``."""
MOST_RANK = 4096
"""Of a plain LoRA that another kind is made, as ``convert`` takes it."""


def train(settings: Mapping[str, Any], preset: str, start_from: str, outputs: Path) -> dict[str, Any]:
    """Starts a run, or puts it into the queue.

    Args:
        settings: by their keys, over those of ``preset``.
        preset: a preset's name; empty for the defaults.
        start_from: a state to branch from, ``RUN@STEP`` or ``RUN``; empty for none.

    Raises:
        StudioError: what has to be fixed first.
    """
    origin = branching.branch_point(start_from, outputs) if start_from else None
    under = origin.run.settings() if origin else None
    wanted = check(layer(presets.before(preset or None, under), settings))
    if not wanted.run.data:
        raise SettingsError("There is no folder of pictures.", where="data", do='Write {"data": "/path/of/pictures"}.')
    run = creating.create(beginning.checked(wanted, outputs), outputs, origin, warm.require_possible)
    runner.start(run)
    return {"run": run.name, "folder": str(run.folder), "waits_for": queue.waits_for(run)}


def status(name: str, watcher: RunWatcher) -> dict[str, Any]:
    """What is known of a run; without a name of the one at work, else of the newest.

    Raises:
        RunError: there is none.
    """
    with watcher.view(run := _named(name, watcher.outputs)) as view:
        return _status(run, view)


def _named(name: str, outputs: Path) -> Run:
    if name:
        return runs.find(name, outputs)
    newest = runner.active(outputs) or next(iter(runs.existing(outputs)), None)
    if newest is None:
        raise RunError("There is no run.", where=outputs, do="Train one first.")
    return newest


def _status(run: Run, view: RunView) -> dict[str, Any]:
    done = view.finished.steps if view.finished else view.last.step if view.last else 0
    last = max((one.step for one in view.previews if not one.base), default=None)
    pictures = [run.folder / one.path for one in view.previews if not one.base and one.step == last]
    return {
        "run": run.name,
        "folder": str(run.folder),
        "state": state_words.plain(run, view),
        "ended": view.state.ended and not runner.alive(run),  # a worker that leaves still has the device
        "waits_for": queue.waits_for(run),
        "step": done,
        "steps": view.started.total_steps if view.started else None,
        "seconds_left": view.last.eta if view.last and not view.state.ended else None,
        "loss": _finite(view.average_loss),
        "validation": _finite(view.validations[-1].value) if view.validations else None,
        "previews": [str(path) for path in pictures],
        "saved_steps": [one.step for one in checkpoints.listed(run)],
        "adapter": str(run.adapter_file) if run.adapter_file.is_file() else None,
        "problem": {"what": view.failed.what, "where": view.failed.where, "do": view.failed.do}
        if view.failed
        else None,
    }


def _finite(value: float) -> float | None:
    """JSON knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None


def stop(name: str, outputs: Path) -> dict[str, Any]:
    """Stops a run or a job, which keeps what it has done, or takes it out of the queue.

    Raises:
        RunError: nothing of that name is at work or waits.
    """
    found = stopping.at_work(name, outputs)
    return {"name": found.name, "left_queue": stopping.stop(found)}


def export(adapter: str, format: str, name: str, settings: Mapping[str, Any], outputs: Path) -> dict[str, Any]:
    """Writes an adapter for other programs and proves that they read it.

    Raises:
        StudioError: there is no such adapter, a setting is wrong, or a program does not read the file as it is.
    """
    _require_known(settings)
    if format not in PLAIN_READERS:
        raise SettingsError(
            f"There is no format {format!r}.",
            where="format",
            do=f"There are {', '.join(PLAIN_READERS)}.",
        )
    (found,) = named.named([(adapter, 1.0)], library.entries(outputs))
    entry = found.entry
    kind = KINDS[entry.method]
    form = settings.get("form") or usual_form(kind, format)
    programs = settings.get("programs") or readers_of(kind, format, form)
    options = ["--to", format, "--privacy", str(settings.get("privacy", "minimal"))]
    options += [part for program in programs for part in ("--target", str(program))]
    for key in ("dtype", "base", "rank"):
        options += [f"--{key}", str(settings[key])] if settings.get(key) else []
    options += ["--form", str(form)] if kind.readers else []
    with exported(entry, options, format, files.safe_name(name.strip() or usual_name(entry)), outputs) as made:
        file = downloads.offered(made.path, outputs)
    return {"file": str(file), "proof": made.result["proof"], "residual": made.result["residual"]}


def _require_known(settings: Mapping[str, Any]) -> None:
    """Raises SettingsError for settings of ``/export`` that there are not, or that no file can be written with."""
    for key in settings:
        if key not in EXPORT_SETTINGS:
            do = did_you_mean(key, EXPORT_SETTINGS)
            raise SettingsError(f"There is no setting {key!r}.", where="settings", do=do)
    rank, programs = settings.get("rank") or 0, settings.get("programs") or []
    if not isinstance(rank, int) or not 0 <= rank <= MOST_RANK:
        raise SettingsError(f"rank must be a whole number from 0 to {MOST_RANK:,}; it is {rank!r}.", where="settings")
    if not isinstance(programs, list) or not set(map(str, programs)) <= PROGRAMS.keys():
        raise SettingsError(
            f"programs cannot be {programs!r}.",
            where="settings",
            do=f"Give a list of {', '.join(PROGRAMS)}.",
        )
