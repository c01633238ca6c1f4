"""``train``: a folder of pictures -> an adapter."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_studio import files, runs
from lora_studio.cli import watch
from lora_studio.cli.options import AsJson, Outputs, Queue, TextEncoders, duration, like, of_class, tell
from lora_studio.config import presets
from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.errors import DatasetError, SettingsError
from lora_studio.events import Finished
from lora_studio.jobs import ranks, runner
from lora_studio.jobs.queue import ahead
from lora_studio.jobs.view import RunView
from lora_studio.runs import Run, branching, own_presets, renaming

PRESETS = sorted(path.stem for path in presets.FOLDER.glob("*.toml"))


@dataclass
class TrainOptions:
    """The options of ``train``."""

    data: Annotated[str | None, like("data")] = None
    base: Annotated[str | None, like("base", show_default=SPECS["base"].default)] = None
    vae: Annotated[str | None, like("vae", metavar="FILE", show_default="the base model's own")] = None
    text_encoders: TextEncoders = field(default_factory=list)
    preset: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(PRESETS)}; one of your own; or the path of a TOML file.")
    ] = None
    assignments: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="One of the settings below; may be repeated.")
    ] = field(default_factory=list)
    name: Annotated[str | None, like("name")] = None
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN[@STEP] | FILE",
            help="Start from a saved state of that run, with its settings unless others are given; or from an adapter, "
            "whoever made it.",
        ),
    ] = None
    gpus: Annotated[int | None, like("gpus", show_default=SPECS["gpus"].default)] = None
    queue: Queue = False
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Estimate the memory, try a few steps and a preview, and create no run."),
    ] = False
    outputs: Outputs = runs.OUTPUTS
    as_json: AsJson = False


@of_class(TrainOptions)
def train(options: TrainOptions) -> None:
    """Train a style on a folder of pictures."""
    if ranks.follows():
        return follow(options.outputs)
    file = options.origin if branching.is_adapter(options.origin or "") else None
    origin = branching.branch_point(options.origin, options.outputs) if options.origin and not file else None
    under = origin.run.settings() if origin else None
    settings = presets.layered(
        options.preset,
        list(options.assignments),
        under,
        own_presets.folder(options.outputs),
        data=options.data,
        base=options.base,
        vae=options.vae,
        text_encoders=options.text_encoders or None,
        name=options.name,
        gpus=options.gpus,
        start_from=file,
    )
    if not settings.run.data:
        raise SettingsError(
            "There is no folder of pictures.",
            where="--data",
            do="Write for example: python3 app.py train --data my-pictures",
        )
    for note in presets.rate_notes(
        settings.optimizer,
        list(options.assignments),
        presets.before(options.preset, under, own_presets.folder(options.outputs)),
    ):
        print(note, file=sys.stderr)
    if options.dry_run and options.queue:
        raise SettingsError(
            "A trial does not wait in the queue.", where="--queue", do="Leave out --queue or --dry-run."
        )
    if options.dry_run:
        from lora_studio.cli import dry_run

        return dry_run.tell(checked(settings, options.outputs), options.outputs.resolve(), options.as_json)
    execute(begin(settings, options.outputs, origin), options.queue, options.as_json)


def execute(run: Run, queue: bool, as_json: bool) -> None:
    """Runs the training and reports its result; or puts it into the queue and reports what it waits for."""
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
    """Does this process's part of a run that torchrun or accelerate started on several, and that another process leads.
    Raises what the run raises.
    """
    from lora_studio.jobs import rank_worker

    rank_worker.follow(outputs.resolve(), os.getppid())


def settings_help() -> str:
    """The settings that ``--set`` accepts, for the end of ``train --help``."""
    width = max(map(len, SPECS))
    return "Settings for --set:\n\n\b\n" + "\n".join(f"{key:{width}}  {spec.help}" for key, spec in SPECS.items())


def begin(settings: Settings, outputs: Path, origin: branching.BranchPoint | None = None) -> Run:
    """Creates a run, or a branch from ``origin``, after checking its pictures. Raises as ``checked`` and
    ``creating.create``.
    """
    from lora_studio.training import creating

    return creating.create(checked(settings, outputs), outputs.resolve(), origin)


def checked(settings: Settings, outputs: Path) -> Settings:
    """The settings with absolute paths and the steps that their epochs are, after checking their pictures. The worker
    reports what does not prevent training.

    Raises:
        SettingsError, DatasetError: the folder, or the file of prompt pairs, cannot be trained on.
    """
    from lora_studio.dataset import epochs, sources
    from lora_studio.training import noise_levels

    settings = settings.changed(
        data=str(Path(os.path.expanduser(settings.run.data)).resolve()),
        base=files.absolute(settings.run.base),
        vae=files.absolute(settings.run.vae),
        text_encoders=[files.absolute(path) for path in settings.run.text_encoders],
    )
    dataset = sources.scan(settings, runs.cache_folder(outputs))
    if dataset.blocking:
        first, others = dataset.blocking[0], len(dataset.blocking) - 1
        raise DatasetError(
            first.what + (f" ({others} more like this)" if others else ""),
            where=first.file or settings.run.data,
            do=first.do,
        )
    noise_levels.require(dataset, settings.noise)
    settings = epochs.settled(settings, dataset.pictures)
    if told := epochs.told(settings):
        print(told, file=sys.stderr)
    return settings


def result(run: Run, seen: RunView) -> dict[str, Any]:
    """What ``--json`` prints of a run that ended with an adapter."""
    end = _end(seen)
    previews = [preview for preview in seen.previews if not preview.base]
    last = [run.folder / preview.path for preview in previews if preview.step == previews[-1].step]
    return {
        "adapter": renaming.recorded(run, end.adapter),
        "run": run.folder,
        "steps": end.steps,
        "seconds": round(end.seconds, 2),
        "final_loss": end.final_loss,
        "average_loss": seen.average_loss,
        "previews": [str(path) for path in last],
    }


def _end(seen: RunView) -> Finished:
    if seen.finished is None:
        raise ValueError("the run has not ended with an adapter")
    return seen.finished


def summary(run: Run, seen: RunView) -> list[str]:
    """The same as lines for a person."""
    end = _end(seen)
    how = "Stopped and saved" if end.stopped else "Finished"
    return [
        f"{how}: {end.steps} steps in {duration(end.seconds)}, average loss {seen.average_loss:.4f}.",
        f"Adapter:  {renaming.recorded(run, end.adapter)}",
        f"Previews: {run.previews}",
        *_next(run, seen),
    ]


def _next(run: Run, seen: RunView) -> list[str]:
    """What can be done with the adapter, as lines."""
    use = "Copy the adapter into ComfyUI's models/loras folder, or try it with:"
    if run.settings().run.base == SPECS["base"].default:
        use = "It works with the built-in starter alone. Try it with:"
    try_it = [use, f"  {_trial(run, seen)}"]
    if run.settings().run.has_pairs:
        return [*try_it, "Its weight moves the concept; a slider's also the other way: --adapter FILE:-1"]
    judge = shlex.join(["python3", "app.py", "judge", str(run.folder)])
    return [*try_it, "Find the saved state to keep with:", f"  {judge}"]


def _trial(run: Run, seen: RunView) -> str:
    """The command that draws with the adapter what the run's first preview shows."""
    settings = run.settings().run
    prompt = next((one.prompt for one in seen.previews), f"{settings.trigger}, a house".strip(" ,"))
    named = {"--base": settings.base if settings.base != SPECS["base"].default else "", "--vae": settings.vae}
    options = [word for name, value in named.items() if value for word in (name, value)]
    options += [word for path in settings.text_encoders for word in ("--text-encoders", path)]
    adapter = run.folder / _end(seen).adapter
    return shlex.join(["python3", "app.py", "generate", "--adapter", str(adapter), *options, "--prompt", prompt])
