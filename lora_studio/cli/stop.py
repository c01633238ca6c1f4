"""``stop``: ends a run or a captioning job from another terminal, or takes it out of the queue before its turn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lora_studio import files, runs
from lora_studio.cli.options import AsJson, Outputs, tell
from lora_studio.errors import RunError
from lora_studio.events import State
from lora_studio.jobs import captioning, control, keeper, runner
from lora_studio.jobs.captioning import CaptioningJob
from lora_studio.jobs.control import Request
from lora_studio.runs import Run


def stop(
    name: Annotated[
        str, typer.Argument(metavar="RUN", help="The name of a run or a captioning job, or the path of its folder.")
    ],
    outputs: Outputs = runs.OUTPUTS,
    as_json: AsJson = False,
) -> None:
    """Stop a run or a captioning job and keep what it has done, or take it out of the queue."""
    found = _at_work(name, outputs)
    left, said = _stop_run(found) if isinstance(found, Run) else _stop_captioning(found)
    tell({"folder": found.folder, "left_queue": left}, [said], as_json)


def _at_work(name: str, outputs: Path) -> Run | CaptioningJob:
    """What is called ``name`` and is at work or waits.

    Raises:
        RunError: nothing is, or a run and a captioning job are.
    """
    path = Path(name).absolute()
    jobs = [job for job in captioning.at_work(outputs) if name == job.name or path == job.folder.absolute()]
    if not jobs:
        run = runs.find(name, outputs)
        if not runner.alive(run):
            what = f"{run.name} is neither at work nor waiting in the queue."
            raise RunError(what, where=run.folder, do="There is nothing to stop.")
        return run
    both = [run.folder for run in runner.at_work(outputs) if run.name == name]
    if both:
        do = f"Name the folder of the one to stop: {both[0]} or {jobs[0].folder}"
        raise RunError(f"A run and a captioning job are called {name}.", where="RUN", do=do)
    return jobs[0]


def _stop_run(run: Run) -> tuple[bool, str]:
    """Asks the run to stop; returns whether it left the queue by that, and what to tell."""
    try:
        control.ask(run, Request.STOP)
        if waited := runner.waits(run):
            keeper.leave(run)
    except OSError as error:
        raise files.refusal(error, "The request cannot be left for the run", run.folder) from error
    if waited and not runner.alive(run):
        return True, f"{run.name} left the queue. Put it back with python3 app.py resume {run.name}"
    return False, f"{run.name} stops after this step, and saves its adapter."


def _stop_captioning(job: CaptioningJob) -> tuple[bool, str]:
    waited = job.view().state is State.QUEUED
    job.cancel()
    if waited:
        return True, f"The captioning of {job.name} leaves the queue."
    return False, f"The captioning of {job.name} stops after the pictures at hand, and keeps what it has written."
