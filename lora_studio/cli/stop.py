"""``stop``: ends a run or a job from another terminal, or takes it out of the queue before its turn."""

from __future__ import annotations

from typing import Annotated

import typer

from lora_studio import runs
from lora_studio.cli.options import AsJson, Outputs, tell
from lora_studio.jobs import stopping
from lora_studio.jobs.job import AtWork
from lora_studio.runs import Run


def stop(
    name: Annotated[str, typer.Argument(metavar="RUN", help="The name of a run or a job, or the path of its folder.")],
    outputs: Outputs = runs.OUTPUTS,
    as_json: AsJson = False,
) -> None:
    """Stop a run or a job and keep what it has done, or take it out of the queue."""
    found = stopping.at_work(name, outputs)
    left = stopping.stop(found)
    said = _of_run(found, left) if isinstance(found, Run) else _of_job(found, left)
    tell({"folder": found.folder, "left_queue": left}, [said], as_json)


def _of_run(run: Run, left: bool) -> str:
    if left:
        return f"{run.name} left the queue. Put it back with python3 app.py resume {run.name}"
    return f"{run.name} stops after this step, and saves its adapter."


def _of_job(found: AtWork, left: bool) -> str:
    title = f"{found.title[0].upper()}{found.title[1:]}"
    return f"{title} leaves the queue." if left else f"{title} stops, and keeps what it has done."
