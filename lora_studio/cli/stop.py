"""``stop``: ends a run or a job from another terminal, or takes it out of the queue before its turn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lora_studio import runs
from lora_studio.cli.options import AsJson, Outputs, tell
from lora_studio.errors import RunError
from lora_studio.jobs import job, runner, stopping
from lora_studio.jobs.job import AtWork
from lora_studio.runs import Run


def stop(
    name: Annotated[str, typer.Argument(metavar="RUN", help="The name of a run or a job, or the path of its folder.")],
    outputs: Outputs = runs.OUTPUTS,
    as_json: AsJson = False,
) -> None:
    """Stop a run or a job and keep what it has done, or take it out of the queue."""
    found = _at_work(name, outputs)
    left, said = _stop_run(found) if isinstance(found, Run) else _stop_job(found)
    tell({"folder": found.folder, "left_queue": left}, [said], as_json)


def _at_work(name: str, outputs: Path) -> Run | AtWork:
    """What is called ``name`` and is at work or waits.

    Raises:
        RunError: nothing is, or both a run and a job are.
    """
    path = Path(name).absolute()
    jobs = [one for one in job.at_work(outputs) if name == one.name or path == one.folder.absolute()]
    if not jobs:
        run = runs.find(name, outputs)
        if not runner.alive(run):
            what = f"{run.name} is neither at work nor waiting in the queue."
            raise RunError(what, where=run.folder, do="There is nothing to stop.")
        return run
    both = [run.folder for run in runner.at_work(outputs) if run.name == name]
    if both:
        do = f"Name the folder of the one to stop: {both[0]} or {jobs[0].folder}"
        raise RunError(f"A run and a {jobs[0].noun} job are called {name}.", where="RUN", do=do)
    return jobs[0]


def _stop_run(run: Run) -> tuple[bool, str]:
    """Asks the run to stop; returns whether it left the queue by that, and what to tell."""
    if stopping.stop_run(run):
        return True, f"{run.name} left the queue. Put it back with python3 app.py resume {run.name}"
    return False, f"{run.name} stops after this step, and saves its adapter."


def _stop_job(found: AtWork) -> tuple[bool, str]:
    waited, title = found.waits, f"{found.title[0].upper()}{found.title[1:]}"
    found.cancel()
    return (True, f"{title} leaves the queue.") if waited else (False, f"{title} stops, and keeps what it has done.")
