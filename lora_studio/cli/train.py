"""``train``: a folder of pictures -> an adapter."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_studio import runs
from lora_studio.cli import watch
from lora_studio.cli.options import AsJson, Outputs, Queue, absolute, duration, like, of_class, tell
from lora_studio.config import presets
from lora_studio.config.settings import SPECS, Settings
from lora_studio.errors import DatasetError, SettingsError
from lora_studio.jobs import ranks, runner
from lora_studio.jobs.queue import ahead
from lora_studio.jobs.view import RunView
from lora_studio.runs import Run, branching

PRESETS = sorted(path.stem for path in presets.FOLDER.glob("*.toml"))


@dataclass
class Order:
    """What ``train`` is asked for."""

    data: Annotated[str | None, like("data")] = None
    base: Annotated[str | None, like("base", show_default=SPECS["base"].default)] = None
    preset: Annotated[str | None, typer.Option(help=f"One of {', '.join(PRESETS)}; or the path of a TOML file.")] = None
    assignments: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="One of the settings below; may be repeated.")
    ] = ()
    name: Annotated[str | None, like("name")] = None
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN[@STEP]",
            help="Begin from what that run had saved, with its settings where no others are given.",
        ),
    ] = None
    gpus: Annotated[int | None, like("gpus", show_default=SPECS["gpus"].default)] = None
    queue: Queue = False
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say how much memory the run would take, try a few steps and a preview, and leave no run."
        ),
    ] = False
    outputs: Outputs = runs.OUTPUTS
    as_json: AsJson = False


@of_class(Order)
def train(order: Order) -> None:
    """Train a style on a folder of pictures."""
    if ranks.follows():
        return follow(order.outputs)
    origin = branching.origin(order.origin, order.outputs) if order.origin else None
    under = origin.run.settings() if origin else None
    settings = presets.layered(
        order.preset, list(order.assignments), under, data=order.data, base=order.base, name=order.name, gpus=order.gpus
    )
    if not settings.run.data:
        raise SettingsError(
            "No folder of pictures is named.",
            where="--data",
            do="Write for example: python3 app.py train --data my-pictures",
        )
    for note in presets.rate_notes(settings, list(order.assignments)):
        print(note, file=sys.stderr)
    if order.dry_run:
        from lora_studio.cli import dry_run

        return dry_run.tell(checked(settings, order.outputs), order.outputs.resolve(), order.as_json)
    go(begin(settings, order.outputs, origin), order.queue, order.as_json)


def go(run: Run, queue: bool, as_json: bool) -> None:
    """Has the run done and tells of its end; or puts it into the queue and tells what it waits for."""
    if queue:
        runner.start(run)
        names = [other.name for other in ahead(run)]
        tell(
            {"run": run.folder, "waits_for": names},
            [f"Run {run.name}, in {run.folder}", watch.place(run) or "It starts now."],
            as_json,
        )
    else:
        seen = watch.work(run)
        tell(result(run, seen), summary(run, seen), as_json)


def follow(outputs: Path) -> None:
    """Does the part of a run's work that falls to this process: torchrun or accelerate started it, and another one
    leads. Raises as the run itself.
    """
    from lora_studio.jobs import rank_worker

    rank_worker.follow(outputs.resolve(), os.getppid())


def settings_help() -> str:
    """The settings that ``--set`` takes, for the end of ``train --help``."""
    width = max(map(len, SPECS))
    return "Settings for --set:\n\n\b\n" + "\n".join(f"{key:{width}}  {spec.help}" for key, spec in SPECS.items())


def begin(settings: Settings, outputs: Path, origin: branching.Origin | None = None) -> Run:
    """A new run, or a branch of ``origin``, after its folder of pictures was looked through. Raises as ``checked`` and
    ``branching.branch``.
    """
    settings, outputs = checked(settings, outputs), outputs.resolve()
    return branching.branch(origin.run, origin.step, settings, outputs) if origin else runs.create(settings, outputs)


def checked(settings: Settings, outputs: Path) -> Settings:
    """The settings with whole paths, after their folder of pictures was looked through. The worker tells of what does
    not keep it from training.

    Raises:
        DatasetError: the folder cannot be trained on.
    """
    from lora_studio.dataset import folder

    settings = settings.changed(
        data=str(Path(settings.run.data).expanduser().resolve()), base=absolute(settings.run.base)
    )
    dataset = folder.scan(Path(settings.run.data), runs.cache_folder(outputs))
    if dataset.blocking:
        first, others = dataset.blocking[0], len(dataset.blocking) - 1
        raise DatasetError(
            first.what + (f" ({others} more like this)" if others else ""),
            where=first.file or settings.run.data,
            do=first.do,
        )
    return settings


def result(run: Run, seen: RunView) -> dict[str, Any]:
    """What ``--json`` tells of a run that ended with an adapter."""
    end = seen.finished
    previews = [preview for preview in seen.previews if not preview.base]
    last = [run.folder / preview.path for preview in previews if preview.step == previews[-1].step]
    return {
        "adapter": run.folder / end.adapter,
        "run": run.folder,
        "steps": end.steps,
        "seconds": round(end.seconds, 2),
        "final_loss": end.final_loss,
        "previews": [str(path) for path in last],
    }


def summary(run: Run, seen: RunView) -> list[str]:
    """The same for a person."""
    end = seen.finished
    how = "Stopped and kept" if end.stopped else "Finished"
    return [
        f"{how}: {end.steps} steps in {duration(end.seconds)}, loss {end.final_loss:.4f}.",
        f"Adapter:  {run.folder / end.adapter}",
        f"Previews: {run.previews}",
        "Copy the adapter into ComfyUI's models/loras folder, or try it with: python3 app.py generate",
    ]
