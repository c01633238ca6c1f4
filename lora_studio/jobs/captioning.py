"""Captioning as a job: a model writes captions for a dataset. The parent's side: imports no torch.

A job is a folder of ``outputs/.captioning`` (``job`` has its files). Its event log is also where captions are kept as
they come, so that a job whose process was killed continues with the next picture. Nothing is written into the dataset
before the job ends. Of proposals, ``settled.json`` has the pictures that she has decided on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lora_studio import files, runs
from lora_studio.errors import DatasetError, ModelError, RunError
from lora_studio.jobs import caption_writing
from lora_studio.jobs.captioning_view import CaptioningView, fold
from lora_studio.jobs.job import Job, place, read
from lora_studio.language import ntr, tr
from lora_studio.vision import catalogue, local
from lora_studio.vision.catalogue import Task
from lora_studio.vision.local import FoundModel
from lora_studio.vision.options import SentenceOptions, TagOptions


class Mode(StrEnum):
    """What becomes of the captions."""

    FILL = "fill"
    """They are written where there is no caption."""
    APPEND = "append"
    """They are added to what is there."""
    PROPOSE = "propose"
    """Nothing is written: they wait in the job until she accepts or dismisses them."""


class CaptioningOrder(BaseModel):
    """What a job is asked for. ``data`` is the dataset's folder; ``model`` a key of ``vision.catalogue``, a folder, a
    file or a name on the hub.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    model: str
    mode: Mode = Mode.FILL
    names: tuple[str, ...] = ()
    """Pictures, relative to the dataset; none means all that ``mode`` is for."""
    nested: bool = False
    """Whether all folders below the dataset belong to it, as in training."""
    batch: int = Field(4, ge=1, le=64)
    """Pictures that the model looks at together: more are quicker, and take more memory."""
    sentences: SentenceOptions = SentenceOptions()
    tags: TagOptions = TagOptions()
    style: bool = False
    """Whether what the model says about the style or medium is kept; see ``curation.style_words``."""


@dataclass(frozen=True)
class CaptioningJob(Job):
    """One captioning job. It stops after the pictures that it is looking at, and writes what it has captioned."""

    worker, noun = "lora_studio.jobs.captioner", tr("captioning")

    @property
    def outputs(self) -> Path:
        return self.folder.parent.parent

    @property
    def title(self) -> str:
        return tr("the captioning of {name}", name=self.name)

    @property
    def activity(self) -> str:
        return tr("pictures are captioned")

    @property
    def settled_file(self) -> Path:
        return self.folder / "settled.json"

    def order(self) -> CaptioningOrder:
        """What it was asked for.

        Raises:
            RunError: the file is missing, damaged or of another version.
        """
        try:
            return CaptioningOrder.model_validate_json(self.order_file.read_bytes())
        except (OSError, ValidationError) as error:
            raise RunError(
                tr("The captioning job's {name} cannot be read.", name=self.order_file.name),
                where=self.order_file,
                do=tr("Start the captioning anew: what the job had written is in the dataset."),
            ) from error

    def view(self) -> CaptioningView:
        alive = self.alive
        view = fold(read(self))
        kept = ntr(
            view.done,
            "{count} picture is captioned and will not be done again.",
            "{count} pictures are captioned and will not be done again.",
        )
        self.settle(view, alive, kept)
        return view

    def proposals(self) -> dict[str, str]:
        """The captions that wait for her decision, by the names of their pictures."""
        settled = set(self._settled())
        return {name: one.text for name, one in self.view().captions.items() if one.text and name not in settled}

    def accept(self, names: Collection[str] | None = None) -> list[str]:
        """Writes the proposals for ``names``, by default all, over the captions that are there, as one step that can be
        undone. Returns the names of the pictures whose captions changed.

        Raises:
            DatasetError: she has not allowed the studio to write in the folder.
            MachineError: the disk refuses.
        """
        open_ones = self.proposals()
        chosen = {name: open_ones[name] for name in (open_ones if names is None else names) if name in open_ones}
        changed = caption_writing.write(Path(self.order().data), chosen, self.outputs)
        self._settle(chosen)
        return changed

    def dismiss(self, names: Collection[str] | None = None) -> None:
        """Drops the proposals for ``names``, by default all.

        Raises:
            MachineError: the disk refuses.
        """
        self._settle(self.proposals() if names is None else names)

    def _settled(self) -> list[str]:
        try:
            return [str(name) for name in json.loads(self.settled_file.read_text("utf-8"))]
        except (OSError, ValueError, TypeError):
            return []

    def _settle(self, names: Collection[str]) -> None:
        try:
            files.write(self.settled_file, json.dumps(sorted({*self._settled(), *names})))
        except OSError as error:
            raise files.refusal(error, tr("The decision cannot be saved"), self.folder) from error


def start(order: CaptioningOrder, outputs: Path = runs.OUTPUTS) -> CaptioningJob:
    """Creates a job and starts it; while runs or other jobs are at work, it waits for its turn.

    Raises:
        DatasetError: there is no such folder; or captions are to be written into it, and she has not allowed that.
        ModelError: the model is not here, which ``details`` then has as ``download``, or it writes no captions.
        MachineError: the outputs folder cannot be written, or no process can be started.
    """
    order = checked(order, outputs)
    runs.require_text(outputs)
    try:
        job = CaptioningJob(runs.new_captioning(Path(order.data).name, outputs))
        files.write(job.order_file, order.model_dump_json())
    except OSError as error:
        raise files.refusal(error, tr("The captioning cannot be started"), outputs) from error
    job.resume()
    return job


def start_or_resume(order: CaptioningOrder, outputs: Path = runs.OUTPUTS) -> CaptioningJob:
    """``start``; or resumes the dataset's latest job if it was asked for the same and did not come to its end."""
    order = checked(order, outputs)
    last = next(iter(jobs(outputs, order.data)), None)
    if last is None or not last.view().can_resume or last.order() != order:
        return start(order, outputs)
    last.resume()
    return last


def checked(order: CaptioningOrder, outputs: Path = runs.OUTPUTS) -> CaptioningOrder:
    """The order with absolute paths. Raises as ``start`` does."""
    data = Path(os.path.expanduser(order.data)).absolute()
    if not data.is_dir():
        raise DatasetError(
            tr("There is no folder {folder}.", folder=data),
            where=order.data,
            do=tr("Choose the folder of your pictures."),
        )
    model_for(order)
    if order.mode is not Mode.PROPOSE:
        caption_writing.require_consent(data, outputs)
    model = order.model if catalogue.named(order.model) else files.absolute(order.model)
    return order.model_copy(update={"data": str(data), "model": model})


def model_for(order: CaptioningOrder) -> FoundModel:
    """The order's model on this machine. Raises ModelError as ``start`` does."""
    found = local.find(order.model)
    if found.task is Task.MASKS:
        raise ModelError(
            tr("{name} draws masks and writes no captions.", name=found.name),
            where=order.model,
            do=tr("Choose a captioner, such as florence2, or a tagger, such as wd14."),
        )
    return found


def jobs(outputs: Path = runs.OUTPUTS, data: Path | str | None = None) -> list[CaptioningJob]:
    """All jobs, or those on the dataset ``data``, the latest first. Folders that cannot be read are passed over."""
    stamped: list[tuple[int, CaptioningJob]] = []
    for entry in runs.entries(runs.captioning_folder(outputs), []):
        job = CaptioningJob(Path(entry.path))
        try:
            stamped.append((job.order_file.stat().st_mtime_ns, job))
        except OSError:
            continue
    found = [job for _, job in sorted(stamped, key=lambda one: (-one[0], one[1].name))]
    return found if data is None else [job for job in found if _is_on(job, Path(data))]


def find(name: str, outputs: Path = runs.OUTPUTS) -> CaptioningJob:
    """The job called ``name``.

    Raises:
        RunError: there is none.
    """
    job = CaptioningJob(runs.captioning_folder(outputs) / name)
    if not name or Path(name).name != name or not job.order_file.is_file():
        raise RunError(
            tr("There is no captioning job named {name!r}.", name=name), where=outputs, do=tr("Start it anew.")
        )
    return job


def at_work(outputs: Path = runs.OUTPUTS) -> list[CaptioningJob]:
    """The captioning jobs that work or wait, in the order of their start."""
    line = [(number, job) for job in jobs(outputs) if (number := place(job)) is not None]
    return [job for _, job in sorted(line, key=lambda one: (one[0], one[1].name))]


def _is_on(job: CaptioningJob, data: Path) -> bool:
    try:
        return Path(job.order().data) == data.expanduser().absolute()
    except RunError:
        return False


def merged(texts: Mapping[str, str], captions: Mapping[str, str], mode: Mode, tags: bool) -> dict[str, str]:
    """The captions to write into the dataset: of ``captions``, which the model wrote, with what is there in ``texts``.
    A picture that needs no change is left out. ``tags`` says whether the model wrote tags.
    """
    if mode is Mode.FILL:
        return {name: text for name, text in captions.items() if text and not texts.get(name)}
    append = caption_writing.with_tags if tags else caption_writing.with_sentence
    added = {name: append(texts.get(name, ""), text) for name, text in captions.items() if text}
    return {name: text for name, text in added.items() if text != texts.get(name, "")}
