"""``caption``: a model writes captions for a folder of pictures."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from lora_studio import runs
from lora_studio.cli import following
from lora_studio.cli.datasets import Allowed, agree
from lora_studio.cli.options import AsJson, Outputs, duration, of_class, tell
from lora_studio.curation.workbench import Workbench
from lora_studio.errors import RunError, SettingsError, StudioError
from lora_studio.events import State
from lora_studio.jobs import captioning
from lora_studio.jobs.captioning import CaptioningJob, CaptioningOrder, Mode
from lora_studio.jobs.captioning_view import CaptioningView
from lora_studio.runs import OUTPUTS
from lora_studio.vision import catalogue
from lora_studio.vision.catalogue import Task
from lora_studio.vision.options import Detail, SentenceOptions, TagOptions

_DETAILS = {"short": Detail.SHORT, "detailed": Detail.DETAILED, "long": Detail.LONG}
_KEYS = ", ".join(one.key for one in catalogue.MODELS if one.task is not Task.MASKS)
_SENTENCES, _TAGS = SentenceOptions(), TagOptions()


@dataclass
class CaptionOptions:
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of pictures.", show_default=False)]
    model: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="MODEL",
            help=f"One of {_KEYS}; or a model's folder, an .onnx file, or the hub name of a downloaded model.",
            show_default=False,
        ),
    ] = ""
    fill: Annotated[bool, typer.Option("--fill", help="Write captions where there are none. The default.")] = False
    append: Annotated[bool, typer.Option("--append", help="Add to what is there.")] = False
    propose: Annotated[bool, typer.Option("--propose", help="Write nothing: propose captions for all.")] = False
    accept: Annotated[
        bool, typer.Option("--accept", help="Write the captions that were proposed last, over those that are there.")
    ] = False
    instruction: Annotated[
        str, typer.Option(help="What a model is told that follows instructions.", show_default="the studio's own")
    ] = _SENTENCES.instruction
    detail: Annotated[Literal["short", "detailed", "long"], typer.Option(help="What Florence-2 writes.")] = "detailed"
    beams: Annotated[int, typer.Option(help="Candidates that a captioner follows; more is slower, often better.")] = 1
    max_tokens: Annotated[
        int, typer.Option(help="After which a caption is cut.", show_default="as the model needs")
    ] = 0
    batch: Annotated[int, typer.Option(help="Pictures at once; fewer need less memory.")] = 4
    general: Annotated[float, typer.Option(help="From which score on a tagger's tag is written.")] = _TAGS.general
    character: Annotated[float, typer.Option(help="The same for names of characters.")] = _TAGS.character
    ratings: Annotated[bool, typer.Option("--ratings", help="Write the likeliest rating too.")] = False
    never: Annotated[
        list[str], typer.Option(metavar="TAG", help="A tag never to write. May be repeated.", show_default=False)
    ] = field(default_factory=list)
    keep_style: Annotated[
        bool, typer.Option("--keep-style", help="Keep what the model says about the style or medium.")
    ] = False
    nested: Annotated[bool, typer.Option("--nested", help="Read all folders below the folder.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the pictures that would be captioned.")] = False
    yes: Allowed = False
    outputs: Outputs = OUTPUTS
    as_json: AsJson = False

    @property
    def mode(self) -> Mode:
        asked = [mode for mode, wanted in zip(Mode, (self.fill, self.append, self.propose), strict=True) if wanted]
        if len(asked) > 1:
            raise SettingsError(f"--{asked[0]} and --{asked[1]} exclude each other.", do="Give one of them.")
        return asked[0] if asked else Mode.FILL

    def order(self) -> CaptioningOrder:
        """Raises SettingsError: an option is out of its bounds, or no model was named."""
        if not self.model:
            raise SettingsError("No model was named.", where="--with", do=f"Give one of {_KEYS}, or a folder.")
        try:
            return CaptioningOrder(
                data=str(self.folder),
                model=self.model,
                mode=self.mode,
                nested=self.nested,
                batch=self.batch,
                style=self.keep_style,
                sentences=SentenceOptions(
                    instruction=self.instruction,
                    detail=_DETAILS[self.detail],
                    beams=self.beams,
                    max_tokens=self.max_tokens,
                ),
                tags=TagOptions(
                    general=self.general, character=self.character, ratings=self.ratings, never=tuple(self.never)
                ),
            )
        except ValidationError as error:
            first = error.errors()[0]
            option = f"--{str(first['loc'][-1]).replace('_', '-')}"
            raise SettingsError(
                f"{first['msg']}.", where=option, do="python3 app.py caption --help lists all."
            ) from None


@of_class(CaptionOptions)
def caption(options: CaptionOptions) -> None:
    """Caption pictures with a model. Captions written by hand are kept, and every change can be undone."""
    outputs = options.outputs.resolve()
    if options.accept:
        return _accept(options, outputs)
    order = options.order()
    if options.dry_run:
        return _dry_run(order, outputs, options.as_json)
    captioning.model_for(order)
    if order.mode is not Mode.PROPOSE:
        _ask(options, outputs)
    job = captioning.start_or_resume(order, outputs)
    seen = _follow(job)
    tell(_result(job, order, seen), _lines(job, order, seen), options.as_json)


def _ask(options: CaptionOptions, outputs: Path) -> None:
    root = options.folder.expanduser()
    if root.is_dir():
        own = root.resolve().is_relative_to(runs.pictures_folder(outputs).resolve())
        agree(Workbench(root, own=own), options.yes)


def _accept(options: CaptionOptions, outputs: Path) -> None:
    job = next((one for one in captioning.jobs(outputs, options.folder) if one.proposals()), None)
    if job is None:
        raise RunError(
            "No captions wait for your decision.",
            where=options.folder,
            do=f"Have some proposed: python3 app.py caption {options.folder} --with florence2 --propose",
        )
    _ask(options, outputs)
    changed = job.accept()
    tell({"job": job.name, "written": changed}, [f"{_count(len(changed))} written. {_UNDO}"], options.as_json)


def _dry_run(order: CaptioningOrder, outputs: Path, as_json: bool) -> None:
    from lora_studio.jobs import captioner

    found = captioning.model_for(order)
    names = list(captioner.wanted(order, captioner.scanned(order, outputs)))
    pictures = "1 picture" if len(names) == 1 else f"{len(names)} pictures"
    lines = [*names, f"{found.name} would caption {pictures}; nothing was written."]
    tell({"model": found.name, "pictures": names}, lines, as_json)


def _follow(job: CaptioningJob) -> CaptioningView:
    """Shows the job's progress until it has ended, and its warnings. Raises as ``following.follow``."""
    try:
        return following.follow(job, job.view, _progress, "what is captioned is kept")
    finally:
        for warning in job.view().warnings:
            note = StudioError(warning.what, where=warning.where, do=warning.do)
            print(f"Note: {note}", file=sys.stderr, flush=True)


def _progress(seen: CaptioningView) -> str:
    if seen.waits_for:
        return f"waits for {seen.waits_for}"
    if seen.state is not State.RUNNING:
        return "starting" if seen.state is State.QUEUED else "loading the model"
    left = "" if seen.seconds_left is None else f", {duration(seen.seconds_left)} left"
    return f"{seen.done} of {seen.total} captioned on {seen.device}{left}"


_UNDO = "python3 app.py tags DIR --undo takes it back."


def _result(job: CaptioningJob, order: CaptioningOrder, seen: CaptioningView) -> dict[str, Any]:
    return {
        "job": job.name,
        "model": seen.model,
        "mode": str(order.mode),
        "stopped": seen.state is State.INTERRUPTED,
        "captioned": seen.done,
        "pictures": seen.total,
        "written": sorted(seen.written),
        "kept": sorted(seen.kept),
        "captions": {name: one.text for name, one in seen.captions.items()},
        "notes": [one.what for one in seen.warnings],
    }


def _lines(job: CaptioningJob, order: CaptioningOrder, seen: CaptioningView) -> list[str]:
    stopped = f"Stopped after {seen.done} of {seen.total}: " if seen.state is State.INTERRUPTED else ""
    if order.mode is Mode.PROPOSE:
        shown = [line for name, one in seen.captions.items() for line in (f"{name}:", f"  {one.text}")]
        accept = (
            f"python3 app.py caption {order.data} --accept writes all of them; the Pictures page shows them singly."
        )
        return [*shown, f"{stopped}{_count(len(job.proposals()))} proposed, none written. {accept}"]
    if not seen.captions:
        return [f"{stopped}Every picture has a caption: nothing to do."]
    kept = f" {_count(len(seen.kept))} stayed as they were." if seen.kept else ""
    return [f"{stopped}{_count(len(seen.written))} written.{kept} {_UNDO}"]


def _count(number: int) -> str:
    return f"{number:,} caption{'s' * (number != 1)}"
