"""The process that captions: ``python -m lora_studio.jobs.captioner JOB_FOLDER``. It reports only through the job's
event log; see ``captioning``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from lora_studio import events as e
from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.curation import style_words
from lora_studio.dataset import pictures
from lora_studio.dataset.items import Dataset, Picture
from lora_studio.errors import DatasetError, MachineError
from lora_studio.jobs import caption_writing, captioning, captioning_view, job_worker
from lora_studio.jobs.captioning import CaptioningJob, CaptioningOrder, Mode
from lora_studio.jobs.captioning_view import CaptioningView
from lora_studio.jobs.eventlog import EventLog
from lora_studio.language import ntr, tr
from lora_studio.vision.catalogue import Task
from lora_studio.vision.local import FoundModel

_LARGEST = 1536
"""Pixels of a picture's longer side; the models look at fewer."""
_NAMED = 3
"""Names that a sentence shows; the others are counted."""


class Description(NamedTuple):
    """What a model makes of one picture."""

    text: str
    cut: bool = False


class Loaded(NamedTuple):
    """A model in memory, and on what."""

    describe: Callable[[Sequence[Image.Image]], Sequence[Description]]
    device: str


def main(folder: str) -> int:
    """Waits for the job's turn and does it; returns the process's exit status."""
    job = CaptioningJob(Path(folder))
    return job_worker.in_turn(job, lambda log, stopping: work(job, log, stopping))


def work(job: CaptioningJob, log: EventLog, stopping: Callable[[], bool]) -> int:
    """Does the job, now; returns the process's exit status."""
    no_room = MachineError(
        tr("The model does not fit in memory."),
        do=tr("Choose a smaller model, or close other programs that use much memory."),
    )

    def caption() -> bool:
        order = job.order()
        return _Work(job, order, scanned(order, job.outputs), log, stopping).do()

    return job_worker.reported(job, log, caption, no_room, tr("what was captioned"))


@dataclass
class _Work:
    """One worker's part of a job."""

    job: CaptioningJob
    order: CaptioningOrder
    dataset: Dataset
    log: EventLog
    stopping: Callable[[], bool]

    def do(self) -> bool:
        """Captions what is left to caption, then writes the captions, also those of a job that was stopped or that
        fails. Returns whether nothing is left.
        """
        known = self._seen().captions
        pictures = wanted(self.order, self.dataset, known)
        todo = [picture for name, picture in pictures.items() if name not in known]
        try:
            if todo and not self.stopping():
                self._caption(todo, len(pictures))
        finally:
            self._tell()
            if self.order.mode is not Mode.PROPOSE:
                self._write()
        return pictures.keys() <= self._seen().captions.keys()

    def _seen(self) -> CaptioningView:
        return captioning_view.fold(captioning.read(self.job))

    def _caption(self, left: list[Picture], total: int) -> None:
        """Captions the pictures that are ``left`` of ``total``, with fewer at once where memory runs out."""
        found = captioning.model_for(self.order)
        model, batch = load(found, self.order), self.order.batch
        began = e.CaptioningStarted(
            done=total - len(left),
            total=total,
            model=found.name,
            device=model.device,
            tags=found.task is Task.TAGS,
        )
        self.log.append(began)
        while left and not self.stopping():
            group = left[:batch]
            try:
                looked_at = list(self._looked_at(model, group))
            except Exception as error:
                if len(group) == 1 or not _memory_full(error):
                    raise
                batch = len(group) // 2
                what = tr("Memory ran out: from now on {count} at once.", count=batch)
                self.log.append(e.Warned(what=what, do=tr("Nothing needs to be done.")))
                continue
            del left[:batch]
            for picture, said in looked_at:
                text = said.text if self.order.style else style_words.without(said.text)
                self.log.append(e.Captioned(name=self.dataset.name(picture), text=text, cut=said.cut))

    def _looked_at(self, model: Loaded, group: Sequence[Picture]) -> Iterator[tuple[Picture, Description]]:
        """The pictures of ``group`` with what the model makes of them. One that cannot be read is told, and captioned
        with nothing.
        """
        opened: list[tuple[Picture, Image.Image]] = []
        for picture in group:
            try:
                opened.append((picture, shown(picture)))
            except DatasetError as error:
                self.log.append(e.Warned(what=error.what, where=self.dataset.name(picture), do=error.do))
                yield picture, Description("")
        if opened:
            said = model.describe([image for _, image in opened])
            yield from zip((picture for picture, _ in opened), said, strict=True)

    def _tell(self) -> None:
        """Tells which captions are shorter than they might be."""
        seen = self._seen()
        captions = seen.captions
        cut = [name for name, one in captions.items() if one.cut]
        empty = [name for name, one in captions.items() if not one.text]
        if cut:
            what = ntr(
                len(cut),
                "{count} caption was cut at the limit: {names}",
                "{count} captions were cut at the limit: {names}",
                names=_listed(cut),
            )
            self.log.append(e.Warned(what=what, do=tr("Allow longer captions, or edit them.")))
        if empty:
            what = ntr(
                len(empty),
                "{count} picture got no caption: {names}",
                "{count} pictures got no caption: {names}",
                names=_listed(empty),
            )
            do = tr("Try another model, or write what is missing yourself.")
            if seen.tags:
                do = tr("Lower the thresholds, or write what is missing yourself.")
            self.log.append(e.Warned(what=what, do=do))

    def _write(self) -> None:
        """Writes the captions into the dataset, over nothing that was written meanwhile."""
        data, seen = Path(self.order.data), self._seen()
        there = caption_writing.own_captions(data, self.order.nested)
        settled = seen.written | seen.kept
        captions = {name: one.text for name, one in seen.captions.items() if one.text and name not in settled}
        changes = captioning.merged(there, captions, self.order.mode, seen.tags)
        before = {name: there.get(name, "") for name in changes}
        title = ntr(len(changes), "{count} caption by {model}", "{count} captions by {model}", model=seen.model)
        written = caption_writing.write(data, changes, self.job.outputs, title, before)
        if captions:
            kept = tuple(name for name in captions if name not in written)
            self.log.append(e.CaptionsWritten(written=tuple(written), kept=kept))


def scanned(order: CaptioningOrder, outputs: Path) -> Dataset:
    """The order's dataset. Raises DatasetError where there is none to caption."""
    from lora_studio.dataset import folder

    dataset = folder.scan(Path(order.data), runs.cache_folder(outputs), nested=order.nested)
    if dataset.blocking:
        raise DatasetError(
            dataset.blocking[0].what, where=dataset.blocking[0].file or order.data, do=dataset.blocking[0].do
        )
    return dataset


def wanted(order: CaptioningOrder, dataset: Dataset, done: Collection[str] = ()) -> dict[str, Picture]:
    """The pictures that the order is for, by their names, with those that are ``done``. Those that are left out of
    training only if they are named.
    """
    known = {dataset.name(one): one for one in (*dataset.pictures, *(dataset.left_out if order.names else ()))}
    if order.names:
        known = {name: known[name] for name in order.names if name in known}
    if order.mode is Mode.FILL:
        written = caption_writing.own_captions(Path(order.data), order.nested)
        known = {name: picture for name, picture in known.items() if name in done or not written.get(name)}
    return known


def _memory_full(error: Exception) -> bool:
    """Whether the device's memory ran out; what the attempt took is free again then."""
    import torch

    from lora_studio.training import devices

    full = devices.memory_full(error)
    if full and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return full


def shown(picture: Picture) -> Image.Image:
    """What the model looks at: the part of the picture that is trained on.

    Raises:
        DatasetError: it cannot be read.
    """
    image = pictures.open_picture(picture.path)
    if crop := picture.crop:
        width, height = image.size
        left, top, right, bottom = crop
        box = round(left * width), round(top * height), round(right * width), round(bottom * height)
        image = image.crop((box[0], box[1], max(box[2], box[0] + 1), max(box[3], box[1] + 1)))
    image.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    return image


def load(found: FoundModel, order: CaptioningOrder) -> Loaded:
    """The order's model in memory: on the best device there is, in the number format that suits it.

    Raises:
        ModelError: it is damaged or of an unknown kind.
        MachineError: a library is missing.
    """
    if found.task is Task.TAGS:
        return _tagger(found, order)
    from lora_studio.training import devices
    from lora_studio.vision import captioners

    machine = devices.choose(Settings().machine)
    captioner = captioners.load(found.path, order.sentences, machine.device, machine.dtype)
    return Loaded(lambda images: [Description(*one) for one in captioner.caption(images)], machine.name)


def _tagger(found: FoundModel, order: CaptioningOrder) -> Loaded:
    from lora_studio.vision import taggers

    tagger = taggers.Tagger(found.path)

    def describe(images: Sequence[Image.Image]) -> list[Description]:
        return [Description(", ".join(taggers.chosen(scored, order.tags))) for scored in tagger.score(images)]

    return Loaded(describe, tagger.device)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else ".")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
