"""Ending what is at work or waits: a run or a job of another kind."""

from __future__ import annotations

from pathlib import Path

from lora_studio import files, runs
from lora_studio.errors import RunError
from lora_studio.jobs import control, job, keeper, runner
from lora_studio.jobs.control import Request
from lora_studio.jobs.job import AtWork
from lora_studio.language import tr
from lora_studio.runs import Run


def at_work(name: str, outputs: Path) -> Run | AtWork:
    """What is called ``name``, or lies in that folder, and is at work or waits.

    Raises:
        RunError: nothing is, or both a run and a job are.
    """
    path = Path(name).absolute()
    jobs = [one for one in job.at_work(outputs) if name == one.name or path == one.folder.absolute()]
    if not jobs:
        run = runs.find(name, outputs)
        if not runner.alive(run):
            what = tr("{name} is neither at work nor waiting in the queue.", name=run.name)
            raise RunError(what, where=run.folder, do=tr("There is nothing to stop."))
        return run
    both = [run.folder for run in runner.at_work(outputs) if run.name == name]
    if both:
        do = tr("Name the folder of the one to stop: {run} or {job}", run=both[0], job=jobs[0].folder)
        raise RunError(tr("A run and a {noun} job are called {name}.", noun=jobs[0].noun, name=name), where=name, do=do)
    return jobs[0]


def stop(found: Run | AtWork) -> bool:
    """Asks a run or a job to stop; returns whether it leaves the queue by that, before its turn. A request that came
    before changes nothing.

    Raises:
        MachineError: the disk refuses.
    """
    if isinstance(found, AtWork):
        waited = found.waits
        found.cancel()
        return waited
    try:
        control.ask(found, Request.STOP)
        if waited := runner.waits(found):
            keeper.leave(found)
    except OSError as error:
        raise files.refusal(error, tr("The request cannot be left for the run"), found.folder) from error
    return waited and not runner.alive(found)
