"""``resume``: continues a stopped or interrupted run from its newest saved state, or as a new run from an older one."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lora_studio import files, runs
from lora_studio.cli.options import AsJson, Outputs, Queue, like
from lora_studio.cli.train import execute, follow
from lora_studio.config.settings import Settings
from lora_studio.errors import RunError
from lora_studio.jobs import ranks, runner, view
from lora_studio.runs import Run, branching, checkpoints

_SHOWN = 5


def resume(
    name: Annotated[str, typer.Argument(metavar="RUN", help="The run's name, or the path of its folder.")],
    step: Annotated[
        int | None,
        typer.Option(help="Resume from this step. If it is not the newest saved state, a new run starts there."),
    ] = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="Resume even if pictures, captions or settings have changed since the state was saved.",
        ),
    ] = False,
    data: Annotated[str | None, like("data", "The folder of pictures, if it moved.")] = None,
    base: Annotated[str | None, like("base", "The base model, if it moved.")] = None,
    vae: Annotated[str | None, like("vae", "Its VAE, if that is a file of its own and moved.", metavar="FILE")] = None,
    text_encoders: Annotated[
        list[str] | None,
        like("text_encoders", "Its text encoders, likewise. May be repeated.", metavar="FILE"),
    ] = None,
    gpus: Annotated[int | None, like("gpus")] = None,
    queue: Queue = False,
    outputs: Outputs = runs.OUTPUTS,
    as_json: AsJson = False,
) -> None:
    """Resume a run that was stopped or interrupted; if it is running, show its progress."""
    if ranks.follows():
        return follow(outputs)
    run = runs.find(name, outputs)
    changes = _changes(data, base, vae, text_encoders, gpus)
    run.settings().changed(**changes)  # fails before anything is written
    if not runner.alive(run):
        run = _from(run, step) if step is not None else run
        _require_steps_left(run)
        settings = run.settings().changed(**changes)
        branching.require_places(run, settings)
        if not accept_changes:
            _require_unchanged(run, settings)
        run = _applied(run, changes)
    elif given := [*changes, *(["step"] if step is not None else [])]:
        where = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        do = "Stop it first, then resume it with these options."
        raise RunError(f"The run {run.name} is running.", where=where, do=do)
    execute(run, queue, as_json)


def _changes(
    data: str | None, base: str | None, vae: str | None, text_encoders: list[str] | None, gpus: int | None
) -> dict[str, object]:
    """The options that were given, as settings."""
    paths = {"data": data, "base": base, "vae": vae}
    given = {key: files.absolute(path) for key, path in paths.items() if path is not None}
    encoders = {"text_encoders": [files.absolute(path) for path in text_encoders]} if text_encoders else {}
    return {**given, **encoders, **({} if gpus is None else {"gpus": gpus})}


def _applied(run: Run, changes: dict[str, object]) -> Run:
    """The run with its new settings, or the new run that begins from its adapter."""
    from lora_studio.training import creating

    applied = branching.with_changes(run, changes, creating.require_possible)
    if applied != run:
        print(f"The new run {applied.name} begins from the adapter of {run.name}.", file=sys.stderr)
    return applied


def _from(run: Run, step: int) -> Run:
    """The run itself if ``step`` is its newest state, else a branch from that state."""
    if checkpoints.latest(run) == checkpoints.find(run, step).folder:
        return run
    made = branching.branch(run, step, run.settings(), run.folder.parent)
    print(
        f"{run.name} has newer states, which are kept. Resuming from step {step} as the new run {made.name}.",
        file=sys.stderr,
    )
    return made


def _require_steps_left(run: Run) -> None:
    before = view.fold(run)
    if before.finished and not before.finished.stopped:
        do = f"To train further, start a new run with python3 app.py train --from {run.name} --set steps=…"
        raise RunError(f"The run {run.name} has finished all its steps.", where=run.folder, do=do)


def _require_unchanged(run: Run, settings: Settings) -> None:
    """Raises RunError if anything has changed since the newest state was saved."""
    if found := branching.changes(run, settings):
        more = f" And {len(found) - _SHOWN} more." if len(found) > _SHOWN else ""
        what = f"Since its newest state was saved, something changed: {' '.join(found[:_SHOWN])}{more}"
        raise RunError(what, where=run.folder, do="Undo the changes, or resume with --accept-changes.")
