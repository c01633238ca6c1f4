"""``checkpoints``: the states that a run has saved, and stars on those that are to stay."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from lora_studio import runs
from lora_studio.cli.options import AsJson, Outputs, tell
from lora_studio.runs import checkpoints as states


def checkpoints(
    name: Annotated[str, typer.Argument(metavar="RUN", help="The run's name, or the path of its folder.")],
    star: Annotated[
        list[int], typer.Option(metavar="STEP", help="Keep the state of this step for good; may be repeated.")
    ] = (),
    unstar: Annotated[list[int], typer.Option(metavar="STEP", help="Let that state go as others do.")] = (),
    outputs: Outputs = runs.OUTPUTS,
    as_json: AsJson = False,
) -> None:
    """List the states that a run can go on or branch from; star those that are to stay."""
    run = runs.find(name, outputs)
    for step in star:
        states.star(run, step)
    for step in unstar:
        states.star(run, step, on=False)
    found = states.listed(run)
    lines = [_line(saved) for saved in found] or [f"The run {run.name} has saved no state yet."]
    told = [
        {"step": saved.step, "starred": saved.starred, "bytes": saved.size, "at": saved.at, "folder": saved.folder}
        for saved in found
    ]
    tell({"run": run.folder, "checkpoints": told}, lines, as_json)


def _line(saved: states.Saved) -> str:
    when = time.strftime("%d %b %Y, %H:%M", time.localtime(saved.at))
    return f"{'*' if saved.starred else ' '} step {saved.step:>7}  {saved.size / 1e6:8.1f} MB  {when}"
