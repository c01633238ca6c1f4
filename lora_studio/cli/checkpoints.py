"""``checkpoints``: the saved states of a run, and stars that protect them."""

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
        list[int] | None, typer.Option(metavar="STEP", help="Never delete the state of this step; may be repeated.")
    ] = None,
    unstar: Annotated[
        list[int] | None,
        typer.Option(metavar="STEP", help="Remove the star of this step's state; may be repeated."),
    ] = None,
    outputs: Outputs = runs.OUTPUTS,
    as_json: AsJson = False,
) -> None:
    """List the saved states that a run can resume or branch from, and star those to keep."""
    run = runs.find(name, outputs)
    for step in star or []:
        states.star(run, step)
    for step in unstar or []:
        states.star(run, step, on=False)
    found = states.listed(run)
    damaged = {one.folder: one for one in states.damaged(run)}
    told = [
        {
            "step": saved.step,
            "starred": saved.starred,
            "bytes": saved.size,
            "at": saved.at,
            "folder": saved.folder,
            "damage": damaged[saved.folder].why if saved.folder in damaged else "",
        }
        for saved in found
    ]
    good = [_line(saved) for saved in found if saved.folder not in damaged]
    bad = [f"  step {one.step:>7}  damaged: {one.why}" for one in damaged.values()]
    lines = [*good, *bad] or [f"The run {run.name} has no saved states yet."]
    tell({"run": run.folder, "checkpoints": told}, lines, as_json)


def _line(saved: states.Saved) -> str:
    when = time.strftime("%d %b %Y, %H:%M", time.localtime(saved.at))
    return f"{'*' if saved.starred else ' '} step {saved.step:>7}  {saved.size / 1e6:8.1f} MB  {when}"
