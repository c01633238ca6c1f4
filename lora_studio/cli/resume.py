"""``resume``: a stopped or interrupted run goes on from its newest checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from lora_studio import runs
from lora_studio.cli import watch
from lora_studio.cli.options import AsJson, Outputs, tell
from lora_studio.cli.train import result, summary
from lora_studio.errors import RunError
from lora_studio.jobs import runner, view


def resume(
    name: Annotated[str, typer.Argument(metavar="RUN", help="The run's name, or the path of its folder.")],
    outputs: Outputs = runs.OUTPUTS,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that was stopped or interrupted; one that is at work is shown."""
    run = runs.find(name, outputs)
    before = view.fold(run)
    if before.finished and not before.finished.stopped and not runner.alive(run):
        raise RunError(f"The run {run.name} has done all its steps.", where=run.folder, do="Its adapter is there; start a new run with more steps for more.")
    seen = watch.work(run)
    tell(result(run, seen), summary(run, seen), as_json)
