"""``resume``: a stopped or interrupted run goes on from its newest saved state, or a new one from an older."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lora_studio import runs
from lora_studio.cli.options import AsJson, Outputs, Queue, like
from lora_studio.cli.train import follow, go
from lora_studio.errors import RunError
from lora_studio.jobs import ranks, runner, view
from lora_studio.runs import Run, branching, checkpoints

_SHOWN = 5


def resume(
    name: Annotated[str, typer.Argument(metavar="RUN", help="The run's name, or the path of its folder.")],
    step: Annotated[
        int | None,
        typer.Option(
            help="Go on from the state saved at this step. An older one becomes a new run, so that nothing learned since is lost."
        ),
    ] = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="Go on although pictures, captions or settings have changed since the state was saved.",
        ),
    ] = False,
    gpus: Annotated[int | None, like("gpus")] = None,
    queue: Queue = False,
    outputs: Outputs = runs.OUTPUTS,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that was stopped or interrupted; one that is at work is shown."""
    if ranks.follows():
        return follow(outputs)
    run = runs.find(name, outputs)
    changes = {} if gpus is None else {"gpus": gpus}
    run.settings().changed(**changes)  # refused before anything is made or written
    if not runner.alive(run):
        run = _from(run, step) if step is not None else run
        _require_steps_left(run)
        if not accept_changes:
            _require_unchanged(run)
        run = branching.with_changes(run, changes)
    elif changes:
        raise RunError(
            f"The run {run.name} is at work.", where="--gpus", do="Stop it first; then resume it on other GPUs."
        )
    go(run, queue, as_json)


def _from(run: Run, step: int) -> Run:
    """The run itself where ``step`` is its newest state, else a branch from there."""
    if checkpoints.latest(run) == checkpoints.find(run, step).folder:
        return run
    made = branching.branch(run, step, run.settings(), run.folder.parent)
    print(
        f"{run.name} has newer states, which are kept: going on from step {step} as the new run {made.name}.",
        file=sys.stderr,
    )
    return made


def _require_steps_left(run: Run) -> None:
    before = view.fold(run)
    if before.finished and not before.finished.stopped:
        do = f"Its adapter is there; python3 app.py train --from {run.name} --set steps=… trains a new run further."
        raise RunError(f"The run {run.name} has done all its steps.", where=run.folder, do=do)


def _require_unchanged(run: Run) -> None:
    """Raises RunError with what differs from when the newest state was saved."""
    if found := branching.changes(run):
        more = f" And {len(found) - _SHOWN} more." if len(found) > _SHOWN else ""
        what = f"Since its newest state was saved, something changed: {' '.join(found[:_SHOWN])}{more}"
        raise RunError(what, where=run.folder, do="Put that back, or go on all the same with --accept-changes.")
